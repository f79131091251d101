"""Sizes as people write them."""

import pytest

from natsproc_cli.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("64k", 64_000),
        ("1 KiB", 1024),
        ("1.5GB", 1_500_000_000),
        ("2GiB", 2 * 1024**3),
    ],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5.2", "ten", "1 XB", "99999999TB"])
def test_what_is_no_size_is_refused_with_a_sentence(text):
    with pytest.raises(ValueError, match="is not a size: write 10GB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (10**10, "10 GB"), (10**15, "1e+03 TB")]
)
def test_sizes_are_written_in_one_unit(size, text):
    assert format_size(size) == text
