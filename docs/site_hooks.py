"""What the site is made of besides the pages of this folder; called by mkdocs (see mkdocs.yml)."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "llmcache_fast"
# Divio's four kinds of documentation, in the order a newcomer reads them.
SECTIONS = {"tutorial": "Tutorial", "how-to": "How-to", "reference": "Reference", "explanation": "Why"}
GENERATED = "reference/api"


def _is_package_of_names(path: Path) -> bool:
    """Whether the module has anything public: a class, a function, or an `__all__`."""
    tree = ast.parse(path.read_text())
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return any(
        not node.name.startswith("_")
        if isinstance(node, definitions)
        else isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        for node in tree.body
    )


def reference_pages() -> dict[str, str]:
    """The reference: a page for each public module, and one for the extension, by its stub."""
    pages: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if any(part.startswith("_") for part in parts) or not _is_package_of_names(path):
            continue
        name = ".".join(("llmcache_fast", *parts))
        pages[f"{GENERATED}/{name}.md"] = f"# `{name}`\n\n::: {name}\n    options:\n      heading_level: 2\n"
    if (PACKAGE / "_core.pyi").exists():
        pages[f"{GENERATED}/llmcache_fast._core.md"] = (
            "# `llmcache_fast._core`\n\nThe extension written in Rust. It is private: its names may change "
            "in any release; what applications use is in [`llmcache_fast`](llmcache_fast.md).\n\n"
            "::: llmcache_fast._core\n    options:\n      heading_level: 2\n"
        )
    return pages


def front_page() -> str:
    """README.md, its links turned from the repository's root to the site's."""
    text = (ROOT / "README.md").read_text()
    text = re.sub(r"\]\(docs/([^)]*)\)", r"](\1)", text)
    # Files that are not pages of the site become plain text.
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)(?![^)]*\.md)[^)]*\)", r"\1", text)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    extra = {"index.md": front_page(), **reference_pages()}
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        extra[name] = text.replace("](docs/", "](").replace("](README.md", "](index.md")
    for uri, content in extra.items():
        files.append(File.generated(config, uri, content=content))
    return files


def _in_order(folder: str) -> list[str]:
    """Pages of a folder: the index first, then by name (tutorial pages carry numbers)."""
    here = Path(__file__).parent / folder
    return sorted(
        (path.relative_to(here.parent).as_posix() for path in here.rglob("*.md")),
        key=lambda uri: (not uri.endswith("index.md"), uri),
    )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay out the navigation: the folder tree is the table of contents."""
    nav: list[dict[str, object] | str] = [{"Overview": "index.md"}]
    for folder, title in SECTIONS.items():
        pages: list[object] = list(_in_order(folder))
        if folder == "reference":
            pages.append({"Python": sorted(reference_pages())})
        if pages:
            nav.append({title: pages})
    nav.append({"Project": [{"Changes": "CHANGELOG.md"}, {"Contributing": "CONTRIBUTING.md"}]})
    config.nav = nav
    return config
