"""benchmarks/ imports from examples/ through one module; examples/ never imports from benchmarks/."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES, BENCHMARKS = (
    {path.stem: path for path in (ROOT / folder).glob("*.py")} for folder in ("examples", "benchmarks")
)


def imported_by(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def test_no_module_hides_another():
    assert not EXAMPLES.keys() & BENCHMARKS.keys()


def test_examples_import_no_benchmark():
    for path in EXAMPLES.values():
        assert not imported_by(path) & BENCHMARKS.keys(), path


def test_benchmarks_import_examples_through_one_module():
    for name, path in BENCHMARKS.items():
        assert name == "from_examples" or not imported_by(path) & EXAMPLES.keys(), path


def test_a_script_finds_the_examples_from_any_folder(tmp_path):
    command = [sys.executable, str(BENCHMARKS["retrieval"]), "run", "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--tuned" in result.stdout
