"""The arguments of ``spd.bench`` for HTTP and for comparing reports, checked and as one value."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.api.values import (
    BOUND_MS,
    FAIL_BELOW,
    PRICE,
    RATE,
    read_flag,
    read_path,
    read_text,
)
from spd_deploy.domain.errors import BadSetting, OptionConflict

if TYPE_CHECKING:
    from spd_deploy.benchmark.http.http_records import HttpSettings
    from spd_deploy.benchmark.regression import ReportComparison
    from spd_deploy.benchmark.report import Report

DEFAULT_BOUND_MS = 100.0
DEFAULT_FAIL_BELOW = 0.95
API_KEY_VARIABLE = "SPD_API_KEY"
_API_KEY = re.compile(r"[!-~]+")  # what a header can hold


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpOptions:
    """The measurements through HTTP that the parameters ask for.

    Attributes:
        settings: None where nothing is.
        urls: of servers that run already.
        api_key: of these servers; None where they want none.
    """

    settings: "HttpSettings | None"
    urls: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def read(
        cls,
        http: object,
        url: object,
        rates: object,
        latency_bound: object,
        price: object,
        api_key_file: object,
    ) -> "HttpOptions":
        """The arguments as one value.

        Raises:
            BadSetting: one is of a wrong type or out of range.
            OptionConflict: one is given without ``http``, or a key without a URL.
        """
        many = [url] if isinstance(url, str) else list(_items(url))
        urls = tuple(read_text("url", one) for one in many)
        asked = [] if rates is None else list(_items(rates))
        chosen = tuple(RATE.read("rates", one) for one in asked)
        bound_ms = BOUND_MS.read("latency_bound", latency_bound)
        per_hour = None if price is None else PRICE.read("price_per_hour", price)
        if api_key_file is not None and not urls:
            _refuse_given({"--api-key-file": True}, "--url")
        if not read_flag("http", http):
            given = {
                "--url": urls,
                "--rates": chosen,
                "--latency-bound": bound_ms != DEFAULT_BOUND_MS,
                "--price-per-hour": per_hour is not None,
            }
            _refuse_given(given, "--http")
            return cls(settings=None, urls=())
        from spd_deploy.benchmark.http.http_records import HttpSettings

        settings = HttpSettings(
            rates=tuple(sorted(set(chosen))),
            latency_bound_s=bound_ms / 1e3,
            price_per_hour=per_hour,
            own_servers=not urls,
        )
        return cls(settings=settings, urls=urls, api_key=_api_key(api_key_file) if urls else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareOptions:
    """The comparison that is asked for; ``old`` is the earlier report, None where none is."""

    old: "Report | None"
    fail_below: float
    times: bool

    @classmethod
    def read(cls, compare: object, fail_below: object, compare_times: object) -> "CompareOptions":
        """The arguments as one value; the report is read at once, before minutes are spent.

        Raises:
            BadReport: there is no such report, or it is of another kind or schema.
            OptionConflict: a setting is given without ``compare``.
        """
        limit = FAIL_BELOW.read("fail_below", fail_below)
        times = read_flag("compare_times", compare_times)
        if compare is None:
            given = {"--fail-below": limit != DEFAULT_FAIL_BELOW, "--compare-times": times}
            _refuse_given(given, "--compare")
            return cls(old=None, fail_below=limit, times=times)
        from spd_deploy.benchmark.regression import report_at

        old = report_at(read_path("compare", compare))
        return cls(old=old, fail_below=limit, times=times)

    def with_new(self, new: "Report") -> "ReportComparison | None":
        """The comparison with a new report; None where none is asked for."""
        from spd_deploy.benchmark.regression import compare_reports

        if self.old is None:
            return None
        return compare_reports(self.old, new, fail_below=self.fail_below, times=self.times)


def _api_key(file: object) -> str | None:
    """The key in a file, else the one in the environment; None where there is neither.

    Raises:
        BadSetting: the file cannot be read, or holds no single key that a header can carry.
    """
    if file is None:
        source, text = API_KEY_VARIABLE, os.environ.get(API_KEY_VARIABLE)
        if text is None:
            return None
    else:
        source = str(path := read_path("api_key_file", file))
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as err:
            raise BadSetting(
                "--api-key-file cannot be read", got=f"{path}: {err}", fix="check the path"
            ) from err
    key = text.strip()
    if not _API_KEY.fullmatch(key):
        raise BadSetting(
            f"{source} does not hold an API key",
            got=f"{len(key)} characters",
            fix="write the key alone on one line, without a name and without spaces",
        )
    return key


def new_report_in(paths: Iterable[Path], compared: CompareOptions) -> "Report | None":
    """The second report to compare, where one stands in the place of the artefacts.

    Raises:
        OptionConflict: a report stands there without ``--compare``, or beside something else.
    """
    from spd_deploy.benchmark.regression import holds_report, report_at

    many = list(paths)
    reports = [path for path in many if holds_report(path)]
    if not reports:
        return None
    if compared.old is None or len(many) > 1:
        raise OptionConflict(
            "a report in the place of ARTEFACT goes alone, with --compare",
            got=" ".join(map(str, many)),
            fix="name artefacts to measure, or one report and --compare OLD",
        )
    return report_at(reports[0])


def _refuse_given(given: Mapping[str, object], wanted: str) -> None:
    """Refuse an option that would be ignored.

    Raises:
        OptionConflict: there is one.
    """
    for option, value in given.items():
        if value:
            raise OptionConflict(
                f"{option} goes with {wanted}", got=f"no {wanted}", fix=f"add {wanted}"
            )


def _items(value: object) -> Iterable[object]:
    """Several values, or one."""
    return value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
