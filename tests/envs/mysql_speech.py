"""MySQL queries over the hand-written databases and the first columns of the rows they give."""

from datetime import date, datetime
from decimal import Decimal

SPEECH = (
    ("SHOW TABLES", [("owner",), ("pet",)]),
    ("show full tables like 'P%'", [("pet", "BASE TABLE")]),
    ("SHOW DATABASES;", [("information_schema",), ("performance_schema",), ("pets",)]),
    ("DESC owner", [("id", "int", "NO", "PRI", None, "auto_increment")]),
    (
        "DESCRIBE `pet`;",
        [("code", "char(3)", "NO", "PRI", "", ""), ("owner_id", "int", "YES", "MUL", None, "")],
    ),
    ("EXPLAIN pets.pet price", [("price", "decimal(10,2)", "YES", "", "0.00", "")]),
    ("SHOW COLUMNS FROM pet IN pets LIKE 's%'", [("size", "float(4,1)", "YES", "", None, "")]),
    ("SHOW KEYS FROM pet", [("pet", 0, "PRIMARY", 1, "code", "A")]),
    ("USE pets", []),
    ("SELECT TABLE_NAME FROM information_schema.tables WHERE table_schema = 'PETS'", [("owner",), ("pet",)]),
    (
        "SELECT column_name, data_type FROM INFORMATION_SCHEMA.COLUMNS WHERE table_name = 'owner' LIMIT 2",
        [("born", "date"), ("id", "int")],
    ),
    (
        "SELECT column_name, referenced_table_name FROM information_schema.key_column_usage "
        "WHERE referenced_table_name IS NOT NULL",
        [("owner_id", "owner")],
    ),
    ("SELECT DATABASE(), VERSION()", [("pets", "8.0.33")]),
    ("SELECT \"a text\", 'it''s', 'x\\'y'", [("a text", "it's", "x'y")]),
    ("SELECT `name` AS `the name` FROM `Owner` ORDER BY `the name` LIMIT 1,2", [("bob",), ("Cy's",)]),
    ("SELECT NAME FROM OWNER WHERE name = 'ANN' OR name = 'zoe ' ORDER BY id", [("Ann",), ("Zoë",)]),
    ("SELECT kind, COUNT(*) FROM pet GROUP BY kind ORDER BY kind", [(None, 1), ("Cat", 2), ("Dog", 1)]),
    ("SELECT COUNT(DISTINCT kind), COUNT(DISTINCT kind, owner_id) FROM pet", [(2, 3)]),
    ("SELECT name FROM owner WHERE name REGEXP '^a' OR name RLIKE 'B$'", [("Ann",), ("bob",)]),
    (
        "SELECT CONCAT(name, '-', id), CONCAT('a', NULL), CONCAT_WS('/', 1, NULL, 'b') FROM owner LIMIT 1",
        [("Ann-1", None, "1/b")],
    ),
    (
        "SELECT IF(id > 1, 'y', 'n'), IFNULL(town, 'none'), LEFT(name, 2), RIGHT(name, 1) FROM owner LIMIT 2",
        [("n", 'Rome; it\'s "far"', "An", "n"), ("y", "none", "bo", "b")],
    ),
    ("SELECT CURDATE(), NOW()", [(date(2023, 6, 26), datetime(2023, 6, 26, 12))]),
    (
        "SELECT DATE_FORMAT(born, '%d.%m.%Y %W'), YEAR(born), MONTH(born) FROM owner LIMIT 1",
        [("02.01.1980 Wednesday", 1980, 1)],
    ),
    (
        "SELECT born + INTERVAL 1 MONTH, DATE_SUB(born, INTERVAL 2 DAY) FROM owner LIMIT 1",
        [(date(1980, 2, 2), date(1979, 12, 31))],
    ),
    (
        "SELECT DATEDIFF('2020-03-01', '2020-02-01'), TIMESTAMPDIFF(YEAR, born, NOW()) FROM owner LIMIT 1",
        [(29, 43)],
    ),
    (
        "SELECT 7 / 2, 7 DIV 2, 7 % 4, 5.5 % 2, 1 / 0, 1e0 / 4",
        [(Decimal("3.5000"), 3, 3, Decimal("1.5"), None, 0.25)],
    ),
    (
        "SELECT AVG(id), SUM(id), AVG(price), SUM(price), COUNT(*) FROM pet JOIN owner ON id = owner_id",
        [(Decimal("1.3333"), Decimal("4"), Decimal("40.830000"), Decimal("122.49"), 3)],
    ),
    (
        "SELECT SUM(weight), MAX(weight), AVG(size), MIN(size) FROM pet",
        [(27.899999856948853, 20.5, 3.63333, 1.5)],
    ),
    ("SELECT code FROM pet WHERE size = 7.8 OR price = 12", [("c2",), ("d1",)]),
    ("SELECT code FROM pet WHERE age > 8 ORDER BY age + 0", [("c1",), ("d1",)]),
    ("SELECT code FROM pet WHERE seen > '2020-01-01'", [("d1",)]),
    (
        "SELECT MAX(seen), MIN(born) FROM pet JOIN owner ON id = owner_id",
        [(datetime(2021, 6, 7, 8, 9, 10), date(1980, 1, 2))],
    ),
    (
        "SELECT 'a' = 'A', 'a' <=> NULL, BINARY 'a' = 'A', '10' > 9, TRUE AND NOT FALSE, 1 XOR 1",
        [(1, 0, 0, 1, 1, 0)],
    ),
    (
        "SELECT ROUND(2.5), ROUND(3.14159, 2), CAST('12' AS SIGNED), CAST(1.239 AS DECIMAL(5,2))",
        [(Decimal("3"), Decimal("3.14"), 12, Decimal("1.24"))],
    ),
    ("SELECT GROUP_CONCAT(name ORDER BY name DESC SEPARATOR ';') FROM owner", [("Zoë;Cy's;bob;Ann",)]),
    ("SELECT name FROM owner WHERE id >= ALL (SELECT id FROM owner)", [("Cy's",)]),
    (
        "SELECT CASE WHEN id > 2 THEN 'late' ELSE 'early' END c, COUNT(*) FROM owner GROUP BY c ORDER BY c",
        [("early", 2), ("late", 2)],
    ),
    ("WITH t AS (SELECT id FROM owner) SELECT MAX(id) / 3 FROM t", [(Decimal("1.3333"),)]),
    ("SELECT 1 FROM DUAL -- nothing else", [(1,)]),
)
