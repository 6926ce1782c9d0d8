"""Style of every figure of this project: size, type, colours, labels, and PNG files.

The colours are Okabe and Ito's, which colour-blind readers can tell apart. Matplotlib is imported
when a figure is drawn.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.domain.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, EDGE, FAINT = "#1f2430", "#7a7f88", "#b8bcc4", "#d9dce1"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
WIDTH, DPI = 9.0, 160
# Dashes of a line that marks a value to compare with.
DASHED = (0, (4, 3))
STYLE = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a folder's name may hold dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
# Figures whose lines are named on the left: their names take the place of the axis.
NAMED_LINES = {**STYLE, "axes.spines.left": False, "ytick.major.size": 0}


def blank(height: float) -> "Figure":
    """An empty figure of :data:`WIDTH` inches, ``height`` inches high."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(wspace=0.06)
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout)


def note(axes: "Axes", x: float, y: float, text: str) -> None:
    """Write a label just right of a point."""
    axes.annotate(
        text, (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5
    )


def png_of(figure: "Figure") -> bytes:
    """The figure as the bytes of a PNG file, which do not name the version of matplotlib."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def save_png(figure: "Figure", file: Path) -> Path:
    """Write the figure, whole or not at all."""
    png = png_of(figure)
    with replacing(file) as draft:
        draft.write_bytes(png)
    return file
