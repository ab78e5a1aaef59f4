"""A small set of files in the format of InterCode's Spider data, written by hand for the tests."""

import json
from pathlib import Path

DUMP = r"""-- TEST USER
CREATE USER 'admin'@'%' IDENTIFIED BY 'admin';
GRANT ALL PRIVILEGES ON *.* TO 'admin'@'%';

CREATE DATABASE  IF NOT EXISTS `pets` /*!40100 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci */;
USE `pets`;
-- MySQL dump 10.13; a comment with 'a quote
/*!40101 SET NAMES utf8 */;
DROP TABLE IF EXISTS `Owner`;
CREATE TABLE `Owner` (
  `id` int NOT NULL AUTO_INCREMENT,
  `name` varchar(20) COLLATE utf8mb4_general_ci DEFAULT NULL,
  `born` date DEFAULT NULL,
  `town` text COLLATE utf8mb4_general_ci,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB AUTO_INCREMENT=5 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
LOCK TABLES `Owner` WRITE;
INSERT INTO `Owner` VALUES (3,'Zoë','1990-05-06','Oslo'),(1,'Ann','1980-01-02','Rome; it\'s "far"'),
  (2,'bob','2000-12-31',NULL),(4,'Cy''s','1985-07-08','Line\nbreak');
UNLOCK TABLES;
CREATE TABLE `pet` (
  `code` char(3) COLLATE utf8mb4_general_ci NOT NULL DEFAULT '',
  `owner_id` int DEFAULT NULL,
  `kind` text COLLATE utf8mb4_general_ci,
  `weight` float DEFAULT NULL,
  `size` float(4,1) DEFAULT NULL,
  `price` decimal(10,2) DEFAULT '0.00',
  `seen` datetime DEFAULT NULL,
  `age` text COLLATE utf8mb4_general_ci,
  PRIMARY KEY (`code`),
  KEY `pet_FK` (`owner_id`),
  CONSTRAINT `pet_FK` FOREIGN KEY (`owner_id`) REFERENCES `Owner` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
INSERT INTO `pet` VALUES ('c1',1,'Cat',3.3,1.5,10.50,'2020-01-01 00:00:00','9'),('d1',1,'Dog',20.5,7.8,99.99,
'2021-06-07 08:09:10','10'),('c2',2,'cat',4.1,1.6,12.00,'2019-03-04 05:06:07','2'),
('x1',NULL,NULL,NULL,NULL,NULL,NULL,NULL);

CREATE DATABASE `stage`;
USE `stage`;
CREATE TABLE `show` (`Show_ID` int NOT NULL, `Title` text, `Seats` double DEFAULT NULL,
  PRIMARY KEY (`Show_ID`));
INSERT INTO `show` VALUES (1,'Hamlet',100),(2,'Cats',250.5);
CREATE DATABASE `towns`;
USE `towns`;
CREATE TABLE `town` (`Name` text, `People` int);
INSERT INTO `town` VALUES ('Oslo',700),('Rome',2800),('Lima',10000);
CREATE TABLE `empty_one` (`x` int);
"""

TABLES = {
    "pets": {"Owner": ["id", "name", "born", "town"], "pet": ["code", "owner_id", "kind", "weight"]},
    "stage": {"show": ["Show_ID", "Title", "Seats"]},
    "towns": {"town": ["Name", "People"], "empty_one": ["x"]},
}

GOLDS = (
    ("pets", "SELECT name FROM owner ORDER BY name", "easy"),
    ("pets", "SELECT T1.name , T2.kind FROM Owner AS T1 JOIN pet AS t2 ON T1.id = T2.owner_id", "medium"),
    ("pets", 'SELECT count (*) FROM pet WHERE kind = "CAT"', "easy"),
    ("pets", "SELECT kind FROM pet WHERE kind LIKE 'cow'", "hard"),
    ("stage", "SELECT avg(Seats) FROM SHOW", "easy"),
    ("stage", "SELECT count(*) FROM (SELECT Title FROM `show`)", "extra"),
    ("towns", "SELECT Name FROM town ORDER BY People DESC", "easy"),
    ("towns", "SELECT x FROM empty_one", "medium"),
)


def spider_rows() -> list[dict]:
    return [
        {
            "db": db,
            "gold": gold,
            "query": f"Question {number}?",
            "hardness": hardness,
            "db_tables": TABLES[db],
        }
        for number, (db, gold, hardness) in enumerate(GOLDS)
    ]


def write_spider(folder: Path, rows: list | None = None, dump: str = DUMP) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ic_spider_dev.json").write_text(json.dumps(spider_rows() if rows is None else rows))
    (folder / "ic_spider_dbs.sql").write_text(dump, encoding="utf-8")
    return folder
