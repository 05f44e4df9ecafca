import io
import math
from csv import DictReader

import pandas as pd
import pytest
from rich.console import Console

from reports import Report
from reports.escaping import csv_text
from reports.records import StudyRecords
from reports.result_table import (
    heads_markdown,
    latex,
    markdown,
    result_lines,
    rich_table,
    terminal_text,
)
from reports.tables import caption, head_rows, result_rows

_ROWS = pd.DataFrame(
    {
        "arm": ["unet", "unetpp"],
        "label": ["U-Net_1 & co", "UNet++"],
        "deep_supervision": [False, True],
        "num_parameters": [7_760_000, 9_040_000],
        "macs": [12.1e9, 312e6],
        "num_runs": [5, 5],
        "dice_mean": [0.9, 0.91234],
        "dice_sd": [0.01, 0.02],
        "iou_mean": [0.81, 0.80],
        "iou_sd": [0.011, 0.022],
        "delta_dice": [float("nan"), 0.01234],
        "delta_low": [float("nan"), -0.00004],
        "delta_high": [float("nan"), 0.024],
        "p_holm": [float("nan"), 0.0512],
    }
)
_NOTE = "5 % of a_b; mean ± sd."


def test_latex_is_this_text() -> None:
    assert (
        latex(result_lines(_ROWS, "unet"), [_NOTE], label="tiny")
        == r"""
% needs \usepackage{booktabs,amssymb}
\begin{table}
\centering
\caption{Bold: best mean; underlined: second. $\approx$: not significantly different from the baseline (Holm p $\geq$ 0.05). 5 \% of a\_b; mean $\pm$ sd.}
\label{tab:tiny}
\begin{tabular}{lcrrcclr}
\toprule
Arm & DS & Params & MACs & Dice $\uparrow$ & IoU $\uparrow$ & $\Delta$ Dice [95\,\%] & Holm $p$ \\
\midrule
U-Net\_1 \& co & -- & 7.76 M & 12.1 G & \underline{0.900} $\pm$ 0.010 & \textbf{0.810} $\pm$ 0.011 & baseline &  \\
UNet++ & \checkmark & 9.04 M & 0.31 G & \textbf{0.912} $\pm$ 0.020 & \underline{0.800} $\pm$ 0.022 & $+$0.012 $\approx$ [$+$0.000, $+$0.024] & 0.051 \\
\bottomrule
\end{tabular}
\end{table}
""".lstrip()
    )


def test_markdown_is_this_text() -> None:
    assert markdown(result_lines(_ROWS, "unet"), [_NOTE]) == (
        "| Arm | DS | Params | MACs | Dice | IoU | Delta Dice [95 %] | Holm p |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| U-Net\\_1 & co | no | 7.76 M | 12.1 G | *0.900* ± 0.010 | **0.810** ± 0.011 "
        "| baseline |  |\n"
        "| UNet++ | yes | 9.04 M | 0.31 G | **0.912** ± 0.020 | *0.800* ± 0.022 "
        "| +0.012 ≈ [+0.000, +0.024] | 0.051 |\n"
        "\n"
        "Bold: best mean; italics: second. ≈: not significantly different from the baseline "
        "(Holm p >= 0.05). 5 % of a\\_b; mean ± sd.\n"
    )


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_fits_in_eighty_columns_without_losing_a_digit(study: StudyRecords, scale: float) -> None:
    rows = result_rows(study)
    # Narrow intervals print four decimals, the widest that the table gets.
    rows[["delta_low", "delta_high"]] *= scale
    lines = result_lines(rows, "unet")
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    console.print(rich_table(lines))
    text = terminal_text(lines, caption(study))
    assert max(map(len, text.splitlines())) <= 80
    table = text.split("\n\n")[0]
    for line in lines:
        for cell in (line.label, line.dice.mean, line.iou.spread, line.delta, line.interval):
            assert cell in table
    assert "…" not in table
    assert table.count("\n") == 2 + 2 * len(lines)


def test_a_long_label_is_folded_and_not_cut(study: StudyRecords) -> None:
    rows = result_rows(study).assign(label="nested network with a very long name")
    text = terminal_text(result_lines(rows, "unet"), [])
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_a_label_is_no_markup() -> None:
    rows = _ROWS.assign(label=["[red]x", "y"])
    assert "[red]x" in terminal_text(result_lines(rows, "unet"), [])


def test_csv_numbers_are_the_raw_ones(study: StudyRecords, report: Report) -> None:
    path = next(path for path in report.tables if path.name == "table.csv")
    with path.open(newline="") as file:
        read = list(DictReader(file))
    numbers = result_rows(study)
    for name in numbers.select_dtypes("number").columns:
        for row, number in zip(read, numbers[name], strict=True):
            # Bit for bit; NaN is an empty cell.
            assert (float(row[name]) == number) if row[name] else math.isnan(number)
    assert csv_text(numbers) == path.read_text()


def test_all_writers_print_the_same_numbers(study: StudyRecords, report: Report) -> None:
    lines = result_lines(result_rows(study), "unet")
    texts = {path.suffix: path.read_text() for path in report.tables if path.stem == "table"}
    texts[".html"] = report.page.read_text()
    for line in lines:
        for suffix in (".txt", ".md", ".html"):
            assert line.dice.mean in texts[suffix]
            assert line.delta in texts[suffix]
            assert line.interval in texts[suffix]
        assert line.dice.mean in texts[".tex"]


def test_heads_mark_the_judged_output(study: StudyRecords) -> None:
    text = heads_markdown(head_rows(study), digits=3)
    assert text.count("**L4**") == 2
    assert "**mean**" not in text
