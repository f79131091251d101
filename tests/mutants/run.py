"""Break the code on purpose, one patch at a time, and see the named test fail.

Each `*.patch` here begins with a line `# test: tests/…::name`. In a copy of the working tree the patch is
applied, and that test has to go red; it has to be green without it. `run.py NAME …` takes only some.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
IGNORED = shutil.ignore_patterns(".git", ".venv", "*_cache", "__pycache__", ".hypothesis", "node_modules")


def pytest(tree: Path, test: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(os.fspath, (tree, tree / "typings")))  # natsproc, natsproc_cli
    environment = os.environ | {"PYTHONPATH": path, "NATSPROC_MUTANT": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def main(chosen: list[str]) -> int:
    patches = sorted(p for p in HERE.glob("*.patch") if not chosen or p.stem in chosen)
    survivors: list[str] = []
    green: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=IGNORED, symlinks=True)
        subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
        for number, patch in enumerate(patches, 1):
            test = patch.read_text().splitlines()[0].removeprefix("# test:").strip()
            print(f"[{number}/{len(patches)}] {patch.stem} → {test}", flush=True)
            if test not in green:
                if (plain := pytest(tree, test)).returncode:
                    print(plain.stdout[-2000:])
                    survivors.append(f"{patch.stem}: {test} is not green without the patch")
                    continue
                green.add(test)
            applied = subprocess.run(
                ["git", "apply", patch], cwd=tree, capture_output=True, text=True, check=False
            )
            if applied.returncode:
                survivors.append(f"{patch.stem}: does not apply: {applied.stderr.strip()}")
                continue
            try:
                if (broken := pytest(tree, test)).returncode != 1:
                    print(broken.stdout[-1000:])
                    survivors.append(
                        f"{patch.stem}: {test} did not go red (pytest's exit code {broken.returncode})"
                    )
            finally:
                subprocess.run(["git", "apply", "-R", patch], cwd=tree, check=True)
    print(f"{len(patches) - len(survivors)} of {len(patches)} mutants killed")
    print("\n".join(survivors))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
