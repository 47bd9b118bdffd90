"""The architecture's arrows point one way, and asking for help costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pretextlm

ROOT = Path(pretextlm.__file__).parent
# Each room may import itself and the rooms to its right; the modules at the top level may be imported by all.
ORDER = [
    "cli",
    "study",
    "report",
    "compression",
    "evaluation",
    "hf",
    "training",
    "tasks",
    "objectives",
    "scoring",
    "model",
    "cleaning",
    "data",
]
FACES = {"__main__.py", "__init__.py", "extensions.py", "testing"}
"""Modules above all rooms: the command line, the public names, `register`, and the checks for objectives."""
SIDE_BY_SIDE = {("study", "report"), ("model", "data"), ("model", "cleaning")}
HEAVY = {"torch", "numpy", "tokenizers", "pydantic", "matplotlib", "pyarrow", "scipy", "transformers", "datasets"}


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def type_checking_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            names.update(n.module for n in ast.walk(node) if isinstance(n, ast.ImportFrom) and n.module)
    return names


def test_imports_point_downwards():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0]
        if room in FACES:
            continue
        for name in imports_of(path) - type_checking_imports(path):
            parts = name.split(".")
            if parts[0] != "pretextlm" or len(parts) < 2 or parts[1] not in ORDER:
                continue
            if room not in ORDER:
                wrong.append(f"{path.name} (top level) imports {name}")
            elif ORDER.index(parts[1]) < ORDER.index(room):
                wrong.append(f"{room}/{path.name} imports {name}")
    assert wrong == []


def test_report_reads_run_directories_only():
    for path in (ROOT / "report").glob("*.py"):
        for name in imports_of(path):
            assert not name.startswith(("pretextlm.training", "pretextlm.model", "pretextlm.study", "torch")), path


def test_command_files_import_nothing_heavy_at_module_level():
    for path in (ROOT / "cli").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {getattr(n, "module", None) or n.names[0].name for n in top}
        assert not {name.split(".")[0] for name in names} & HEAVY, path


def test_help_imports_no_torch():
    code = (
        "import sys; sys.argv = ['pretextlm', '--help']\n"
        "from pretextlm.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = sorted({'torch', 'numpy', 'tokenizers', 'pydantic'} & set(sys.modules))\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout
