"""The tables of a run's page, as the audit reads them."""

from coevo_jax.audit.pages import read_tables

PAGE = """
<section id="exploration"><table>
<tr><th>Phase</th><th>n</th></tr>
<tr><td>Target explores</td><td>40</td></tr>
<tr><td> {phase} </td><td>8</td></tr>
</table></section>
"""


def test_rows_are_read_by_their_columns_and_an_earlier_version_s_words_as_today_s(tmp_path):
    page = tmp_path / "report.html"
    for phase in ("Branches", "Branches (branches)"):
        page.write_text(PAGE.format(phase=phase), encoding="utf-8")
        [rows] = read_tables(page)["exploration"]
        assert rows == [{"Phase": "Target explores", "n": "40"}, {"Phase": "Branches", "n": "8"}]
    page.write_text(PAGE.format(phase="Tree (branches)"), encoding="utf-8")
    assert read_tables(page)["exploration"][0][1]["Phase"] == "Tree (branches)"
