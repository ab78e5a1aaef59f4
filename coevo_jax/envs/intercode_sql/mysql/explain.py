"""EXPLAIN: the tree of a query's plan, for scans and lookups of single tables."""

from typing import Any

from coevo_jax.envs.intercode_sql.mysql import errors
from coevo_jax.envs.intercode_sql.mysql.select import SelectPlan


def explain(plan: Any) -> str:
    """The plan as EXPLAIN FORMAT=TREE shows it.

    Raises:
      SqlError: the plan is more than a scan of one table.
    """
    scan = plan.scanned() if isinstance(plan, SelectPlan) else None
    if scan is None:
        raise errors.not_supported("EXPLAIN of this query")
    alias, index, covering, cost, rows = scan
    words = f"Table scan on {alias}"
    if index is not None:
        words = f"{'Covering index' if covering else 'Index'} scan on {alias} using {index}"
    return f"-> {words}  (cost={cost} rows={rows})\n"
