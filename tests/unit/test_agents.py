"""What the helpers for agent frameworks show, and that nobody has to have a framework."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from natsproc.agents.conversing import SHOWN, shown, text_of
from natsproc.protocol.messages import encode


def test_a_message_says_text_or_the_text_of_an_object_or_its_json():
    assert text_of("hello") == text_of({"text": "hello", "user": 1}) == "hello"
    assert text_of({"model": "mlp"}) == '{"model":"mlp"}'
    assert text_of({"text": 3}) == "3"


def test_what_is_no_json_is_shown_as_text():
    assert shown({"day": date(2026, 1, 2), "what": ValueError("odd")}) == {"day": "2026-01-02", "what": "odd"}


@settings(max_examples=20, deadline=None)
@given(st.text(min_size=8, max_size=9).map(lambda text: text * (SHOWN // 4)))
def test_what_is_long_is_cut_and_never_within_a_character(value):
    text = shown([value])
    assert isinstance(text, str)
    assert len(encode(text)) <= 2 * SHOWN + 100
    assert text.startswith('["')


def test_natsproc_itself_imports_no_framework():
    code = "import sys, natsproc; natsproc.run, natsproc.connect; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [
        name for name in loaded.split() if name.startswith(("natsproc.agents", "pydantic_ai", "lang"))
    ]
