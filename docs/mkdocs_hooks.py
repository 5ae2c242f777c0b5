"""What mkdocs calls while it builds the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def on_config(config: Any) -> Any:
    """Put every card into the navigation, below their index: README.md is sorted first."""
    for section in ("methods", "spaces"):
        config.nav.append(
            {section.capitalize(): [f"{section}/{p.name}" for p in sorted((FOLDER / section).glob("*.md"))]}
        )
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links and pictures that lie outside this folder, in the code, stand as plain text."""
    here = Path(page.file.abs_src_path).parent

    def inside(match: re.Match[str]) -> str:
        target = (here / match[2].partition("#")[0]).resolve()
        stays = "://" in match[2] or match[2].startswith("#") or (target.is_file() and FOLDER in target.parents)
        return match[0] if stays else match[1]

    return re.sub(r"!?\[([^\]]*)\]\(([^)\s]+)\)", inside, markdown)
