"""Break the code on purpose, one patch at a time, and see the named test fail.

Each `*.patch` here begins with a line `# test: tests/…::name`. In a copy of the working tree the patch is
applied, and that test has to go red; it has to be green without it. `run.py NAME …` takes only some. Several are
tried at once (`JOBS`, 3 unless said), each in a copy of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from queue import SimpleQueue

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
IGNORED = shutil.ignore_patterns(".git", ".venv", "*_cache", "__pycache__", ".hypothesis", "node_modules")
JOBS = int(os.environ.get("JOBS", "3"))


def pytest(tree: Path, test: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(os.fspath, (tree, tree / "typings")))  # natsproc, natsproc_cli
    environment = os.environ | {"PYTHONPATH": path, "NATSPROC_MUTANT": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def test_of(patch: Path) -> str:
    return patch.read_text().splitlines()[0].removeprefix("# test:").strip()


def tried(tree: Path, test: str, patches: list[Path]) -> Iterator[tuple[Path, str]]:
    """Try the patches of one test; of each, what is wrong with it, if anything is."""
    plain = pytest(tree, test)
    for patch in patches:
        if plain.returncode:
            yield patch, f"{test} is not green without the patch\n{plain.stdout[-2000:]}"
            continue
        applied = subprocess.run(
            ["git", "apply", patch], cwd=tree, capture_output=True, text=True, check=False
        )
        if applied.returncode:
            yield patch, f"does not apply: {applied.stderr.strip()}"
            continue
        broken = pytest(tree, test)
        subprocess.run(["git", "apply", "-R", patch], cwd=tree, check=True)
        survives = broken.returncode != 1
        code = f"(pytest's exit code {broken.returncode})"
        yield patch, f"{test} did not go red {code}\n{broken.stdout[-1000:]}" if survives else ""


def main(chosen: list[str]) -> int:
    patches = sorted((p for p in HERE.glob("*.patch") if not chosen or p.stem in chosen), key=test_of)
    done, survivors = 0, []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(JOBS) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(JOBS):
            tree = Path(folder) / f"tree{number}"
            shutil.copytree(ROOT, tree, ignore=IGNORED, symlinks=True)
            subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
            trees.put(tree)

        def work(test: str, patches: list[Path]) -> None:
            nonlocal done
            tree = trees.get()
            try:
                for patch, wrong in tried(tree, test, patches):
                    done += 1
                    print(f"[{done}/{total}] {patch.stem} → {test}", flush=True)
                    if wrong:
                        survivors.append(f"{patch.stem}: {wrong}")
                        print(f"survives: {survivors[-1]}", flush=True)  # a run that is stopped has said so
            finally:
                trees.put(tree)

        total = len(patches)
        groups = [(test, list(some)) for test, some in groupby(patches, key=test_of)]
        for future in as_completed([pool.submit(work, *group) for group in groups]):
            future.result()
    print(f"{total - len(survivors)} of {total} mutants killed")
    print("\n".join(survivors))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
