"""Statements over the hand-written databases and what a real MySQL answers, rule by rule."""

from datetime import date
from decimal import Decimal

RULES = (
    ("SELECT kind, COUNT(*) FROM pet GROUP BY kind", [("Cat", 2), ("Dog", 1), (None, 1)]),
    ("SELECT DISTINCT kind FROM pet", [("Cat",), ("Dog",), (None,)]),
    ("SELECT owner_id, COUNT(*) FROM pet GROUP BY owner_id", [(None, 1), (1, 2), (2, 1)]),
    ("SELECT code FROM pet ORDER BY kind LIMIT 2", [("x1",), ("c1",)]),
    (
        "SELECT name FROM owner UNION SELECT kind FROM pet",
        [("Ann",), ("bob",), ("Zoë",), ("Cy's",), ("Cat",), ("Dog",), (None,)],
    ),
    ("SELECT kind FROM pet EXCEPT SELECT 'dog'", [("Cat",), (None,)]),
    ("SELECT code FROM pet WHERE size = (SELECT MIN(size) FROM pet)", [("c1",)]),
    ("SELECT code FROM pet WHERE size IN (1.5, 7.8)", [("c1",)]),
    (
        "SELECT code FROM pet p WHERE size = (SELECT MAX(size) FROM pet q WHERE q.owner_id = p.owner_id)",
        [("c2",), ("d1",)],
    ),
    ("SELECT code FROM pet WHERE size = (SELECT size FROM pet ORDER BY size DESC LIMIT 1)", [("d1",)]),
    (
        "SELECT SUM(size), AVG(size), SUM(price), SUM(weight) FROM pet",
        [(10.9, 3.63333, Decimal("122.49"), 27.899999856948853)],
    ),
    (
        "SELECT COALESCE(size, 'none'), COALESCE(weight, 'none') FROM pet",
        [("1.5", "3.3"), ("1.6", "4.1"), ("7.8", "20.5"), ("none", "none")],
    ),
    ("SELECT COALESCE(id, 'x') AS v FROM owner ORDER BY v", [("1",), ("2",), ("3",), ("4",)]),
    ("SELECT DATE('2020-03-01') - DATE('2020-01-01'), born + 1 FROM owner LIMIT 1", [(200, 19800103)]),
    (
        "SELECT ROUND(weight), ROUND(0.25e0, 1), ROUND(2.5), ROUND(2.5e0), FLOOR(weight), CEIL(1.2) "
        "FROM pet WHERE code = 'd1'",
        [(20.0, 0.2, Decimal("3"), 2.0, 20.0, 2)],
    ),
    (
        "SELECT CAST('2.7' AS SIGNED), CAST(2.5e0 AS SIGNED), CAST(-7 AS UNSIGNED), ~1, BIT_COUNT(-1), "
        "ORD('é'), UPPER('ß')",
        [(2, 2, 18446744073709551609, 18446744073709551614, 64, 50089, "ß")],
    ),
    (
        "SELECT 9007199254740993 DIV 1, -7 DIV 2, 7.5 DIV 2, DATE('2020-01-31') + INTERVAL 1 MONTH, "
        "LAST_DAY('2020-02-03')",
        [(9007199254740993, -3, 3, date(2020, 2, 29), date(2020, 2, 29))],
    ),
    ("SELECT code FROM pet HAVING code > 'c1'", [("x1",), ("d1",), ("c2",)]),
    (
        "SELECT kind, (SELECT COUNT(*) FROM owner o WHERE o.id <= COUNT(*)) FROM pet GROUP BY kind",
        [("Cat", 2), ("Dog", 1), (None, 1)],
    ),
    (
        "SELECT owner.name, COUNT(*) FROM owner JOIN pet ON id = owner_id GROUP BY id",
        [("Ann", 2), ("bob", 1)],
    ),
    (
        "SELECT o.name AS name, p.kind AS name FROM owner o JOIN pet p ON o.id = p.owner_id ORDER BY o.name",
        [("Ann", "Cat"), ("Ann", "Dog"), ("bob", "cat")],
    ),
    (
        "SELECT name, town FROM owner o LEFT JOIN pet p ON p.owner_id = o.id WHERE p.code IS NULL",
        [("Zoë", "Oslo"), ("Cy's", "Line\nbreak")],
    ),
    (
        "SELECT code, RANK() OVER (PARTITION BY kind ORDER BY weight DESC) FROM pet",
        [("x1", 1), ("c2", 1), ("c1", 2), ("d1", 1)],
    ),
    (
        "SELECT kind, SUM(price) FROM pet GROUP BY kind WITH ROLLUP",
        [(None, None), ("Cat", Decimal("22.50")), ("Dog", Decimal("99.99")), (None, Decimal("122.49"))],
    ),
    (
        "SELECT * FROM owner NATURAL JOIN (SELECT 1 AS id, 2 AS x) d",
        [(1, "Ann", date(1980, 1, 2), 'Rome; it\'s "far"', 2)],
    ),
    (
        "SELECT GROUP_CONCAT(DISTINCT kind ORDER BY kind DESC SEPARATOR '/'), JSON_ARRAYAGG(code) FROM pet",
        [("Dog/Cat", '["c1", "c2", "d1", "x1"]')],
    ),
    (
        "SELECT 1 IN (1, NULL), 2 NOT IN (1, NULL), NULL <=> NULL, 'a ' = 'A', (1, 2) = (1, 2), 'abc' "
        "LIKE 'A_C'",
        [(1, None, 1, 0, 1, 1)],
    ),
    ("SHOW COLUMNS FROM pet WHERE Field = 'kind'", [("kind", "text", "YES", "", None, "")]),
    (
        "SELECT index_name, column_name FROM information_schema.statistics WHERE table_schema = 'pets' "
        "AND table_name = 'pet'",
        [("pet_FK", "owner_id"), ("PRIMARY", "code")],
    ),
    (
        "SELECT constraint_name, constraint_type FROM information_schema.table_constraints WHERE "
        "table_schema = 'pets'",
        [("PRIMARY", "PRIMARY KEY"), ("PRIMARY", "PRIMARY KEY"), ("pet_FK", "FOREIGN KEY")],
    ),
    (
        "SELECT column_name, numeric_precision, numeric_scale FROM information_schema.columns WHERE "
        "table_schema = 'pets' AND table_name = 'pet' AND numeric_precision IS NOT NULL ORDER BY "
        "ordinal_position",
        [("owner_id", 10, 0), ("weight", 12, None), ("size", 4, 1), ("price", 10, 2)],
    ),
    ("EXPLAIN SELECT * FROM owner", [("-> Table scan on owner  (cost=0.65 rows=4)\n",)]),
    ("SELECT 'a' || 'b', 1 || 0, !0, 5 % 3", [(0, 1, 1, 2)]),
    ("SELECT code INTO @x FROM pet LIMIT 1", []),
    (
        "SELECT kind, AVG(weight) w FROM pet GROUP BY kind HAVING w > 3 ORDER BY w DESC",
        [("Dog", 20.5), ("Cat", 3.6999999284744263)],
    ),
    (
        "SELECT owner_id, kind FROM pet WHERE owner_id IN (SELECT id FROM owner WHERE name LIKE 'a%')",
        [(1, "Cat"), (1, "Dog")],
    ),
    (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n",
        [(1,), (2,), (3,)],
    ),
    ("VALUES ROW(1, 'a'), ROW(2, 'b')", [(1, "a"), (2, "b")]),
    ("TABLE owner LIMIT 1", [(1, "Ann", date(1980, 1, 2), 'Rome; it\'s "far"')]),
)
"""Statements and their rows."""

REFUSALS = (
    (
        "SELECT name, kind FROM owner JOIN pet ON id = owner_id GROUP BY name",
        "Expression #2 of SELECT list is not in GROUP BY clause and contains nonaggregated column "
        "'pets.pet.kind' which is not functionally dependent on columns in GROUP BY clause; this is "
        "incompatible with sql_mode=only_full_group_by",
    ),
    (
        "SELECT kind, MAX(weight) FROM pet",
        "In aggregated query without GROUP BY, expression #1 of SELECT list contains nonaggregated "
        "column 'pets.pet.kind'; this is incompatible with sql_mode=only_full_group_by",
    ),
    (
        "SELECT DISTINCT kind FROM pet ORDER BY weight",
        "Expression #1 of ORDER BY clause is not in SELECT list, references column 'pets.pet.weight' "
        "which is not in SELECT list; this is incompatible with DISTINCT",
    ),
    (
        "SELECT kind FROM pet ORDER BY COUNT(*)",
        "Expression #1 of ORDER BY contains aggregate function and applies to the result of a "
        "non-aggregated query",
    ),
    (
        "SELECT code FROM pet WHERE code IN (SELECT code FROM pet LIMIT 1)",
        "This version of MySQL doesn't yet support 'LIMIT & IN/ALL/ANY/SOME subquery'",
    ),
    ("SELECT code FROM pet WHERE kind = (SELECT kind FROM pet)", "Subquery returns more than 1 row"),
    ("SELECT code FROM pet HAVING weight > 1", "Unknown column 'weight' in 'having clause'"),
    ("SELECT * FROM (SELECT code AS a, kind AS a FROM pet) z", "Duplicate column name 'a'"),
    ("SELECT 1 FROM pet, pet", "Not unique table/alias: 'pet'"),
    ("SELECT rank FROM pet", "SYNTAX 'FROM pet' at line 1"),
    ("SELECT count (*) FROM pet", "SYNTAX '*) FROM pet' at line 1"),
    ("SELECT code FROM pet WHERE kind NOT NULL", "SYNTAX 'NULL' at line 1"),
    ("SELECT code, * FROM pet", "SYNTAX '* FROM pet' at line 1"),
    ("SELECT CAST(code AS INT) FROM pet", "SYNTAX 'INT) FROM pet' at line 1"),
    ("DESC show", "SYNTAX 'show' at line 1"),
    ("SELECT DISTINCT", "SYNTAX '' at line 1"),
    ("SELECT code, FROM pet", "SYNTAX 'FROM pet' at line 1"),
    ("SELECT code FROM pet WHERE code == 1", "SYNTAX '== 1' at line 1"),
    ("SELECT code::text FROM pet", "SYNTAX '::text FROM pet' at line 1"),
    ("SELECT code FROM pet WHERE code ILIKE 'a%'", "SYNTAX 'ILIKE 'a%'' at line 1"),
    ("SELECT code FROM pet LIMIT 1 WHERE 1", "SYNTAX 'WHERE 1' at line 1"),
    ("SELECT kind FROM pet HAVING COUNT(*) > 1 GROUP BY kind", "SYNTAX 'GROUP BY kind' at line 1"),
    ("SELECT code FROM pet WHERE code = 'c1", "SYNTAX ''c1' at line 1"),
    ("SELECT code FROM pet LIMIT x", "Undeclared variable: x"),
    ("SELECT code FROM pet WHERE MAX(weight) > 1", "Invalid use of group function"),
    ("SELECT id FROM owner a JOIN owner b ON a.id = b.id", "Column 'id' in field list is ambiguous"),
    (
        "SELECT code FROM pet WHERE nope IN (SELECT id FROM owner)",
        "Unknown column 'nope' in 'IN/ALL/ANY subquery'",
    ),
    ("SELECT code FROM pet JOIN owner USING (name)", "Unknown column 'name' in 'from clause'"),
    ("SELECT code FROM pet WHERE seen > ''", "Incorrect DATETIME value: ''"),
    ("SELECT 9223372036854775807 + 1", "BIGINT value is out of range in '(9223372036854775807 + 1)'"),
    ("SELECT TOP 5 * FROM pet", "SYNTAX '5 * FROM pet' at line 1"),
    (
        "SELECT a.code FROM pet a FULL OUTER JOIN owner b ON 1",
        "SYNTAX 'FULL OUTER JOIN owner b ON 1' at line 1",
    ),
    (
        "SELECT * FROM pet FOR UPDATE",
        "SELECT with locking clause command denied to user 'agent'@'localhost' for table 'pet'",
    ),
    ("UPDATE pet SET weight = 1", "UPDATE command denied to user 'agent'@'localhost' for table 'pet'"),
    ("SHOW COLUMNS pet", "SYNTAX 'pet' at line 1"),
    ("SHOW TABLS", "SYNTAX 'TABLS' at line 1"),
    ("SHOW TABLES FROM stagex", "Unknown database 'stagex'"),
    ("DESC pets", "Table 'pets.pets' doesn't exist"),
    ("I think the answer is 3", "SYNTAX 'I think the answer is 3' at line 1"),
    ("SELECT kind, code FROM pet GROUP BY 1 ORDER BY 3", "Unknown column '3' in 'order clause'"),
    (
        "SELECT code FROM pet UNION SELECT id, name FROM owner",
        "The used SELECT statements have a different number of columns",
    ),
)
"""Statements and the words they are refused with; SYNTAX stands for how a syntax error begins."""
