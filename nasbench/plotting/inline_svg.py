"""A picture as a part of a page: in the page's colours, with a name that is read aloud, and ids of its own."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from nasbench.plotting.style import INK, PAPER, PLATE, Picture, rendered

SVG, LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
#: Colours that follow the page's, which may be dark.
COLOURS = {INK: "currentColor", PLATE: "var(--plate)", PAPER: "var(--paper)"}


def inlined(picture: Picture, prefix: str) -> str:
    """The picture as an `svg` element; every id in it begins with the prefix."""
    root = ET.fromstring(rendered(picture))
    ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    references = re.compile("#(" + "|".join(map(re.escape, sorted(ids, key=len, reverse=True))) + r")(?![\w-])")
    used: set[str] = set()
    for element in root.iter():
        for child in [c for c in element if c.tag in (f"{{{SVG}}}{name}" for name in ("metadata", "style", "title"))]:
            element.remove(child)  # such a style would be the whole page's
        for name, value in element.attrib.items():
            used |= set(references.findall(value))
            value = references.sub(rf"#{prefix}-\1", value)
            for colour, instead in COLOURS.items():
                value = value.replace(colour, instead)
            element.set(name, value)
    for element in root.iter():
        if (mine := element.attrib.pop("id", None)) in used:
            element.set("id", f"{prefix}-{mine}")
    for name in ("width", "height"):  # the view box has the shape, the page the size
        root.attrib.pop(name)
    # As on the picture's own, lines end and join so.
    root.attrib |= {"role": "img", "aria-labelledby": f"{prefix}-title", "stroke-linejoin": "round"}
    title = ET.Element(f"{{{SVG}}}title", {"id": f"{prefix}-title"})
    title.text = f"{picture.title}. {picture.text}"
    root.insert(0, title)
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", LINK)
    return ET.tostring(root, encoding="unicode")
