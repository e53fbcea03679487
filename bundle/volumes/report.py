"""A batch on one page that opens in any browser, without the internet: what was found, and what to look at."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from bundle.files import write_atomically

__all__ = ["write_report"]

_WIDTH = 560

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #1b1f24; background: #fff; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
p { margin: .25rem 0 1rem; color: #57606a; max-width: 60rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .5rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #d8dee4; }
th { position: sticky; top: 0; background: #f6f8fa; vertical-align: bottom; }
th[data-kind=number] { text-align: right; }
th button { font: inherit; font-weight: 600; border: 0; background: none; cursor: pointer; padding: 0; color: inherit;
  text-align: inherit; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name { overflow-wrap: anywhere; min-width: 9rem; }
td img { display: block; width: 36vw; max-width: 560px; min-width: 220px; }
.done { color: #116329; } .check { color: #9a6700; } .failed { color: #b42318; }
.status { font-weight: 600; white-space: nowrap; }
@media print { th { position: static; } tr { break-inside: avoid; } }
"""

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), column = head.cellIndex, body = document.querySelector("tbody");
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
  const numeric = (a, b) => Number(value(a)) - Number(value(b));
  const rows = [...body.rows].sort(head.dataset.kind === "number" ? numeric : compare);
  body.append(...(down ? rows.reverse() : rows));
});
"""

_COLUMNS = (
    ("volume", "text"),
    ("status", "text"),
    ("lesion, mL", "number"),
    ("lesions", "number"),
    ("uncertainty, bit", "number"),
    ("seconds", "number"),
    ("what to know", "text"),
    ("picture", ""),
)


def _thumbnail(picture: Path) -> str:
    """The picture in the page itself, as JPEG; a sentence where there is none."""
    try:
        with Image.open(picture) as image:
            image.thumbnail((_WIDTH, 10 * _WIDTH))
            content = io.BytesIO()
            # Colours as fine as greys, for the outline is a pixel wide.
            image.convert("RGB").save(content, "JPEG", quality=80, subsampling=0)
    except OSError:
        return "no picture"
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img loading="lazy" alt="axial slices with the lesion\'s outline" src="data:image/jpeg;base64,{data}">'


def _number(record: Mapping[str, Any], value: float | None, digits: int) -> str:
    """A cell; what a failed volume does not have sorts below every number."""
    if record["status"] == "failed" or value is None:
        return '<td class="number" data-value="-1">-</td>'
    return f'<td class="number" data-value="{value}">{value:.{digits}f}</td>'


def _text(text: str) -> str:
    """As HTML; bytes of a name that are no Unicode are escaped."""
    return escape(text.encode("utf-8", "backslashreplace").decode())


def _linked(shown: str, record: Mapping[str, Any]) -> str:
    """HTML that leads to the volume's view, if it has one."""
    view = f"views/{record['name']}.html"
    if view not in record.get("files", ()):
        return shown
    return f'<a href="{quote(os.fsencode(view))}" title="look through the volume">{shown}</a>'


def _row(record: Mapping[str, Any], output: Path) -> str:
    status = "failed" if record["status"] == "failed" else "check" if record["warnings"] else "done"
    notes = [record["error"]] if status == "failed" else record["warnings"]
    picture = _thumbnail(output / "figures" / f"{record['name']}.png") if status != "failed" else ""
    return "".join(
        (
            f'<tr><td class="name">{_linked(_text(record["name"]), record)}</td>',
            f'<td class="status {status}">{status}</td>',
            _number(record, record.get("volume_ml"), 1),
            _number(record, len(record.get("lesions", ())), 0),
            _number(record, record.get("uncertainty"), 2),
            _number(record, record.get("seconds"), 0),
            f"<td>{'<br>'.join(map(_text, notes))}</td>",
            f"<td>{_linked(picture, record)}</td></tr>",
        )
    )


def write_report(records: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Writes OUTPUT/report.html: a table that sorts by a click on a column's name, with a picture of each volume.

    Args:
        records: of :class:`bundle.volumes.VolumeBatch`.
        output: the folder of the results.
    """
    failed = sum(record["status"] == "failed" for record in records)
    checked = sum(record["status"] == "done" and bool(record["warnings"]) for record in records)
    heads = "".join(
        f'<th data-kind="{kind}">{f"<button>{name}</button>" if kind else name}</th>' for name, kind in _COLUMNS
    )
    rows = "\n".join(_row(record, output) for record in records)
    versions = records[0]["versions"] if records else ""
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Stroke lesions</title><style>{_STYLE}</style></head><body>
<h1>Stroke lesions in {len(records)} volumes</h1>
<p>{len(records) - failed} segmented, {checked} of these to check, {failed} failed. Orange is the outline of the mask.
<strong>Not for clinical use.</strong> {_text(versions)}</p>
<table><thead><tr>{heads}</tr></thead><tbody>
{rows}
</tbody></table><script>{_SCRIPT}</script></body></html>
"""
    write_atomically(page, output / "report.html")
