"""Makes JSON, CSV and Parquet files of one seed: nested, with nulls at each level, odd but valid numbers, missing and
extra fields, lines that cannot be read, and folders whose files differ.

Each case knows its columns as SQL types and, from readers that are not Millstream (the json module with decimals,
DuckDB, pyarrow), which rows there are and which lines are none."""

import csv
import datetime
import decimal
import json
import random

import duckdb
import pyarrow
import pyarrow.parquet

NAMES = ["a", "userId", "Value", "at", "kind", "n1", "Total_Sum", "x y", "größe", "list", "tags"]
TEXTS = ["", "a", "ü, \\ \"q\"", "null", "true", "12", "{}", "long " * 9, "tab\there", "Ab", "ab", "\u00e9\U0001f600"]
EPOCH = datetime.datetime(1970, 1, 1)
decimal.getcontext().prec = 60


class Type:
    """A column's type: `kind` is a name, or "list" or "struct" with what is in it."""

    def __init__(self, kind, item=None, fields=None):
        self.kind, self.item, self.fields = kind, item, fields

    def sql(self):
        if self.kind == "list":
            return f"ARRAY<{self.item.sql()}>"
        if self.kind == "struct":
            return "STRUCT<" + ", ".join(f"{quoted(n)} {t.sql()}" for n, t in self.fields) + ">"
        return self.kind

    def arrow(self):
        if self.kind == "list":
            return pyarrow.list_(self.item.arrow())
        if self.kind == "struct":
            return pyarrow.struct([(n, t.arrow()) for n, t in self.fields])
        return {
            "BIGINT": pyarrow.int64(),
            "INT": pyarrow.int32(),
            "DOUBLE": pyarrow.float64(),
            "BOOLEAN": pyarrow.bool_(),
            "TEXT": pyarrow.string(),
            "TIMESTAMP": pyarrow.timestamp("us"),
            "DATE": pyarrow.date32(),
            "DECIMAL(20, 4)": pyarrow.decimal128(20, 4),
        }[self.kind]


def quoted(name):
    # a plain name folds to lower case, as SQL does
    return name if name.isidentifier() and name.isascii() and name != "list" else f'"{name}"'


def folded(name):
    return name if quoted(name).startswith('"') else name.lower()


def some_type(chance, depth=0, nested=True):
    if nested and depth < 3 and chance.random() < 0.35:
        if chance.random() < 0.5:
            return Type("list", item=some_type(chance, depth + 1))
        return Type("struct", fields=some_fields(chance, depth + 1))
    return Type(chance.choice(["BIGINT", "INT", "DOUBLE", "BOOLEAN", "TEXT", "TIMESTAMP", "DATE", "DECIMAL(20, 4)"]))


def some_fields(chance, depth=0, nested=True):
    names = chance.sample(NAMES, chance.randint(1, 4 if depth else 6))
    return [(name, some_type(chance, depth, nested)) for name in names]


def some_value(chance, t, nulls=0.15):
    """A value of `t` as Python has it; None is null."""
    if chance.random() < nulls:
        return None
    if t.kind == "list":
        return [some_value(chance, t.item) for _ in range(chance.choice([0, 1, 2, 3]))]
    if t.kind == "struct":
        return {name: some_value(chance, f) for name, f in t.fields}
    if t.kind == "BIGINT":
        near = [0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), chance.randint(-999, 999)]
        return chance.choice(near)
    if t.kind == "INT":
        return chance.choice([0, -1, 2**31 - 1, -(2**31), chance.randint(-999, 999)])
    if t.kind == "DOUBLE":
        return chance.choice([0.0, -0.5, 0.1, 1e300, -1e-300, 1e22, 5e-324, chance.uniform(-1e6, 1e6)])
    if t.kind == "BOOLEAN":
        return chance.random() < 0.5
    if t.kind == "TEXT":
        return chance.choice(TEXTS)
    if t.kind == "TIMESTAMP":
        return EPOCH + datetime.timedelta(microseconds=chance.choice([0, -1, 10**15, chance.randint(-(10**15), 4 * 10**15)]))
    if t.kind == "DATE":
        return EPOCH.date() + datetime.timedelta(days=chance.randint(-100_000, 100_000))
    digits = chance.choice([0, 1, -1, 10**19, 12345, chance.randint(-(10**8), 10**8)])
    return decimal.Decimal(digits).scaleb(-4)


def written_number(chance, value, whole):
    """The same number, perhaps written oddly."""
    if isinstance(value, float):
        text = chance.choice([repr(value), f"{value:e}" if float(f"{value:e}") == value else repr(value), f"{value:.17g}"])
    else:
        text = format(value, "f") if isinstance(value, decimal.Decimal) else str(value)
        odd = chance.random()
        if odd < 0.1 and "." not in text:
            text += chance.choice([".0", ".000", "e0", "E+0"])
        elif odd < 0.2 and (not whole or value % 10 == 0):
            text = f"{decimal.Decimal(text).scaleb(3):f}e-3" if odd < 0.15 else f"{decimal.Decimal(text):E}"
    return text


def json_text(chance, t, value, extra):
    """`value` as JSON."""
    space = chance.choice(["", "", " "])
    if value is None:
        return "null"
    if t.kind == "list":
        return "[" + ("," + space).join(json_text(chance, t.item, v, extra) for v in value) + "]"
    if t.kind == "struct":
        return json_object(chance, t.fields, value, extra)
    if t.kind == "TEXT":
        # text takes truth values, numbers and objects as they are written
        bare = value in ("true", "12", "{}") and chance.random() < 0.5
        return value if bare else json.dumps(value, ensure_ascii=chance.random() < 0.5)
    if t.kind == "BOOLEAN":
        return "true" if value else "false"
    if t.kind in ("TIMESTAMP", "DATE"):
        text = value.isoformat()
        return f'"{text.replace("T", " ") if chance.random() < 0.5 else text}"'
    return written_number(chance, value, t.kind in ("BIGINT", "INT"))


def json_object(chance, fields, value, extra):
    space = chance.choice(["", " "])
    parts = []
    for name, t in fields:
        if value[name] is None and chance.random() < 0.5:
            continue
        parts.append(f"{json.dumps(name)}:{space}{json_text(chance, t, value[name], extra)}")
    if extra and chance.random() < 0.3:
        parts.append('"more": ' + chance.choice(["1", '{"deep": [1, {"x": null}]}', '"s"', "[]", "null", "true"]))
    chance.shuffle(parts)
    return "{" + space + f",{space}".join(parts) + space + "}"


def wrong(chance, t):
    """JSON that is no value of `t`, or None where anything is one."""
    if t.kind == "list":
        inner = wrong(chance, t.item)
        return chance.choice(["{}", "1", '"x"'] + ([f"[null, {inner}]"] if inner else []))
    if t.kind == "struct":
        name, field = chance.choice(t.fields)
        inner = wrong(chance, field)
        return chance.choice(["[]", "1", '"x"'] + ([f"{{{json.dumps(name)}: {inner}}}"] if inner else []))
    return {
        "BIGINT": chance.choice(["1.5", "9223372036854775808", '"x"', "true", "[1]", "1e30"]),
        "INT": chance.choice(["0.1", "2147483648", '"x"', "{}"]),
        "DOUBLE": chance.choice(['"x"', "false", "[]", "1e400"]),
        "BOOLEAN": chance.choice(["1", '"x"', "{}"]),
        "TIMESTAMP": chance.choice(['"x"', "true", '"2024-02-30"']),
        "DATE": chance.choice(['"x"', "true", '"2024-13-01"']),
        "DECIMAL(20, 4)": chance.choice(['"x"', "true", "1e17"]),
    }.get(t.kind)


def normal(t, value):
    """A value in the form in which rows are compared; names as SQL has them."""
    if value is None:
        return None
    if t.kind == "list":
        return [normal(t.item, v) for v in value]
    if t.kind == "struct":
        value = {k.lower(): v for k, v in value.items()}
        return {folded(name).lower(): normal(f, value.get(name.lower())) for name, f in t.fields}
    if t.kind == "DOUBLE":
        return float(value)
    return value


class Case:
    """A folder of files and what is in them."""

    def __init__(self, seed, folder):
        self.seed, self.folder = seed, folder
        self.chance = random.Random(seed)
        self.format = self.chance.choice(["json", "csv", "parquet"])
        nested = self.format != "csv"
        self.fields = some_fields(self.chance, nested=nested)
        self.used = set()
        self.rows = {}  # id -> values, as the other reader sees them
        self.dead = []  # (file, line or row)
        self.broken = self.chance.random() < 0.5
        folder.mkdir(parents=True)
        self.files = 0
        for _ in range(self.chance.choice([1, 1, 2, 3])):
            getattr(self, f"_{self.format}")(folder / f"{self.files}.{self.format}")
            self.files += 1

    def columns(self):
        return ", ".join(["id BIGINT"] + [f"{quoted(n)} {t.sql()}" for n, t in self.fields])

    def _values(self):
        for _ in range(self.chance.choice([1, 3, 30])):
            identity = self.files * 1000 + self.chance.randrange(1000)
            if identity not in self.used:
                self.used.add(identity)
                yield identity, {name: some_value(self.chance, t) for name, t in self.fields}

    def _json(self, path):
        chance = self.chance
        with open(path, "w", encoding="utf-8") as out:
            line = 0
            for identity, values in self._values():
                line += 1
                parts = json_object(chance, [("id", Type("BIGINT"))] + self.fields, {"id": identity, **values}, True)
                bad = self.broken and chance.random() < 0.15
                name, t = chance.choice(self.fields)
                if bad and (text := wrong(chance, t)):
                    whole = {n: json_text(chance, f, values[n], False) for n, f in self.fields if n != name}
                    whole[name], whole["id"] = text, str(identity)
                    parts = "{" + ",".join(f"{json.dumps(n)}:{v}" for n, v in whole.items()) + "}"
                    self.dead.append((path, line, identity))
                elif bad and not parts[: len(parts) // 2].isspace():
                    parts = parts[: len(parts) // 2]
                    self.dead.append((path, line, identity))
                else:
                    self._read_json(parts)
                out.write(parts + "\n")
                if chance.random() < 0.05:
                    out.write("\n")
                    line += 1

    def _read_json(self, line):
        read = json.loads(line, parse_float=decimal.Decimal)
        identity = int(read["id"])
        self.rows[identity] = {name: self._of_json(t, read.get(name)) for name, t in self.fields}

    def _of_json(self, t, value):
        if value is None:
            return None
        if t.kind == "list":
            return [self._of_json(t.item, v) for v in value]
        if t.kind == "struct":
            return {name: self._of_json(f, value.get(name)) for name, f in t.fields}
        if t.kind in ("BIGINT", "INT"):
            return int(value)
        if t.kind == "DOUBLE":
            return float(value)
        if t.kind == "TIMESTAMP":
            return datetime.datetime.fromisoformat(value)
        if t.kind == "DATE":
            return datetime.date.fromisoformat(value)
        if t.kind == "TEXT" and not isinstance(value, str):
            return json.dumps(value)
        if t.kind.startswith("DECIMAL"):
            return decimal.Decimal(value).quantize(decimal.Decimal("0.0001"))
        return value

    def _csv(self, path):
        chance = self.chance
        # columns in any order, and some that nobody asked for
        names = ["id"] + [n for n, _ in self.fields] + (["more"] if chance.random() < 0.5 else [])
        chance.shuffle(names)
        types = dict(self.fields)
        with open(path, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
            writer.writerow(names)
            good = []
            for line, (identity, values) in enumerate(self._values(), 2):
                row = {"id": str(identity), "more": "1"}
                for name, t in self.fields:
                    value = values[name]
                    text = "" if value is None else value if t.kind == "TEXT" else json_text(chance, t, value, False)
                    row[name] = text.strip('"') if t.kind != "TEXT" else text
                if self.broken and chance.random() < 0.1:
                    name = chance.choice([n for n, _ in self.fields])
                    if types[name].kind == "TEXT":
                        writer.writerow([row[n] for n in names] + ["one more"])
                    else:
                        writer.writerow([row[n] if n != name else "x" for n in names])
                    self.dead.append((path, line, identity))
                    continue
                writer.writerow([row[n] for n in names])
                good.append([row[n] for n in names])
        # DuckDB reads the good lines, in a file of their own
        plain = self.folder.parent / f"{self.folder.name}-{path.name}"
        with open(plain, "w", encoding="utf-8", newline="") as out:
            csv.writer(out, lineterminator="\n").writerows([names, *good])
        read = "read_csv(?, header = true, all_varchar = true, quote = '\"', escape = '\"', delim = ',', nullstr = '')"
        with duckdb.connect() as connection:
            kept = connection.execute(f"SELECT * FROM {read}", [str(plain)]).fetchall()
        for values in kept:
            row = dict(zip(names, values))
            whole = {n: self._of_csv(t, row[n]) for n, t in self.fields}
            self.rows[int(row["id"])] = whole
        plain.unlink()

    def _of_csv(self, t, text):
        if text is None:
            return None
        if t.kind == "BOOLEAN":
            return text == "true"
        if t.kind in ("BIGINT", "INT"):
            return int(decimal.Decimal(text))
        return self._of_json(t, text)

    def _parquet(self, path):
        chance = self.chance
        rows = [{"id": i, **values} for i, values in self._values()]
        fields = [pyarrow.field("id", pyarrow.int64())]
        for name, t in self.fields:
            # files of one folder: without a column, with one of nothing, in another order, narrower
            if self.files > 0 and chance.random() < 0.2:
                continue
            if self.files > 0 and chance.random() < 0.1:
                fields.append(pyarrow.field(name, pyarrow.null()))
                for row in rows:
                    row[name] = None
                continue
            arrow = t.arrow()
            if t.kind == "INT" and chance.random() < 0.5:
                arrow = pyarrow.int64()
            elif t.kind == "BIGINT" and chance.random() < 0.3:
                arrow = pyarrow.int16()
                for row in rows:
                    row[name] = None if row[name] is None else row[name] % 1000
            elif t.kind == "BIGINT" and chance.random() < 0.3:
                arrow = pyarrow.float64()
                for row in rows:
                    row[name] = None if row[name] is None else float(row[name] % 1000)
                if self.broken and rows and len(fields) == 1:
                    row = chance.choice(rows)
                    row[name] = 2.999
                    self.dead.append((path, rows.index(row), row["id"]))
            elif t.kind == "TEXT" and chance.random() < 0.3:
                arrow = pyarrow.large_string()
            fields.append(pyarrow.field(name, arrow))
        if chance.random() < 0.3:
            fields.append(pyarrow.field("more", pyarrow.int8()))
        chance.shuffle(fields)
        table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(fields))
        pyarrow.parquet.write_table(table, path, row_group_size=chance.choice([1, 7, 1000]))
        lost = {identity for _, _, identity in self.dead}
        for row in pyarrow.parquet.read_table(path).to_pylist():
            if row["id"] not in lost:
                self.rows[row["id"]] = {name: row.get(name) for name, _ in self.fields}

    def expected(self):
        return {i: {folded(n).lower(): normal(t, v[n]) for n, t in self.fields} for i, v in self.rows.items()}
