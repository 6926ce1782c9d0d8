"""The colour of each arm of a report, the same in all its figures."""

from spd_deploy.benchmark.report import Report
from spd_deploy.domain.plot_style import COLOURS, GREY


def colours_of(report: Report) -> dict[str, str]:
    """A colour for each arm by its name; grey for every arm that the others are compared with."""
    names = [arm.name for arm in report.others]
    found = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    return {arm.name: found.get(arm.name, GREY) for arm in report.arms}
