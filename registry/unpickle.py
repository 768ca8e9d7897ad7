"""A pickle read without being run.

A pickle is a program for a small stack machine. This machine walks it with stand-ins: where a real one would import
something it notes the name, where a real one would call something it keeps a `Call`. Nothing is imported, nothing is
called, and every read, string and step is counted, so a hostile stream ends in `Broken` and not in a full memory.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

MOST_STEPS = 8_000_000
LONGEST_TEXT = 1_000_000
LONGEST_LINE = 100_000
KEPT_BYTES = 16 * 1024 * 1024  # longer byte strings are skipped, only their length is kept
MOST_TEXT = 256 * 1024 * 1024  # all strings of one stream together


class Broken(Exception):
    """The stream is no pickle, or not one that can be followed to its end."""


class TooMuch(Broken):
    """It asks for more than this machine gives; a real unpickler might go on."""


class Global(NamedTuple):
    """Something a real unpickler would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Persistent(NamedTuple):
    """A reference to something stored outside the pickle: in torch files, a tensor's bytes."""

    id: Any


class Skipped(NamedTuple):
    """A byte string too long to keep."""

    length: int


@dataclass(eq=False)
class Call:
    """What calling `func` would have made, with everything done to it afterwards."""

    func: Any
    args: Any
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    appended: list[Any] = field(default_factory=list)


@dataclass
class Pickle:
    """One walked pickle. `oddities` are things no model file needs, in words."""

    value: Any = None
    imports: set[Global] = field(default_factory=set)
    called: set[Global] = field(default_factory=set)
    nested: list[bytes] = field(default_factory=list)  # byte strings handed to something that unpickles them
    oddities: list[str] = field(default_factory=list)


_MARK = object()
_PLAIN = (str, int, float, bool, bytes, type(None))


def walk(file: IO[bytes]) -> Pickle:
    """One pickle from where the file stands. What was seen before an error is in `Broken.args[1]`.

    Raises Broken.
    """
    machine = _Machine(file)
    try:
        return machine.run()
    except Broken as error:
        raise type(error)(str(error), machine.seen) from None
    except (IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, UnicodeError) as error:
        raise Broken(f"it stops making sense ({error.__class__.__name__})", machine.seen) from None


def seen_before(error: Broken) -> Pickle:
    return error.args[1] if len(error.args) > 1 else Pickle()


class _Machine:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.seen = Pickle()
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.text_left = MOST_TEXT

    def run(self) -> Pickle:
        read1, steps, table = self.file.read, _STEPS, MOST_STEPS
        while table:
            table -= 1
            code = read1(1)
            if code == b".":
                self.seen.value = self.stack.pop()
                return self.seen
            if not code:
                raise Broken("it ends before its end mark")
            step = steps.get(code)
            if step is None:
                raise Broken(f"byte {code!r} is no instruction")
            step(self)
        raise TooMuch(f"it has more than {MOST_STEPS:,} instructions")

    # --- reading ---

    def take(self, count: int) -> bytes:
        if count > KEPT_BYTES:
            raise TooMuch(f"a part of it claims {count:,} bytes")
        data = self.file.read(count)
        if len(data) < count:
            raise Broken("it ends inside an instruction")
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, count: int, encoding: str = "utf-8") -> str:
        if count > LONGEST_TEXT or count > self.text_left:
            raise TooMuch(f"a text in it claims {count:,} bytes")
        self.text_left -= count
        return self.take(count).decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")

    def line(self) -> str:
        data = self.file.readline(LONGEST_LINE)
        if len(data) == LONGEST_LINE:
            raise TooMuch("a line in it is very long")
        if not data.endswith(b"\n"):
            raise Broken("a line in it has no end")
        self.text_left -= len(data)
        if self.text_left < 0:
            raise TooMuch("it holds too much text")
        return data[:-1].decode("latin-1")

    def bytes_(self, count: int) -> bytes | Skipped:
        if count <= KEPT_BYTES and count <= self.text_left:
            self.text_left -= count
            return self.take(count)
        at = self.file.tell()
        end = self.file.seek(0, 2)
        if at + count > end:
            raise Broken("it ends inside an instruction")
        self.file.seek(at + count)
        return Skipped(count)

    # --- the stack ---

    def above_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Broken("a group in it has no beginning")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def import_(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self.odd("imports something whose name it computes")
            self.stack.append(Global("?", "?"))
            self.seen.imports.add(Global("?", "?"))
            return
        found = Global(module, name)
        self.seen.imports.add(found)
        self.stack.append(found)

    def call(self, func: Any, args: Any) -> None:
        if isinstance(func, Persistent) and isinstance(func.id, tuple) and len(func.id) > 1 and func.id[0] == "module":
            func = func.id[1]  # old torch files keep a class's source beside it
        if isinstance(func, Global):
            self.seen.called.add(func)
            if func.name in {"_load_from_bytes", "loads", "load"} and isinstance(args, tuple):
                self.seen.nested += [a for a in args if isinstance(a, bytes)]
        else:
            self.odd("calls something it computed")
        self.stack.append(Call(func, args))

    def odd(self, what: str) -> None:
        if what not in self.seen.oddities and len(self.seen.oddities) < 20:
            self.seen.oddities.append(what)

    def set_items(self, target: Any, pairs: list[Any]) -> None:
        place = target if isinstance(target, dict) else target.items if isinstance(target, Call) else None
        if place is None:
            self.odd("sets items of something that has none")
            return
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(key, _PLAIN):  # hashing a nested tuple can take forever
                place[key] = value

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items(self.stack[-1], [key, value])

    def add(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Call):
            target.appended.extend(values)
        else:
            self.odd("appends to something that is no list")

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Call):
            target.state = state
        elif isinstance(target, Global):
            self.odd(f"changes `{target}` itself")
        else:
            self.odd("sets attributes of a plain value")

    def new(self, keywords: bool) -> None:
        if keywords:
            self.stack.pop()
        args = self.stack.pop()
        self.call(self.stack.pop(), args)

    def reduce(self) -> None:
        args = self.stack.pop()
        self.call(self.stack.pop(), args)

    def instance(self) -> None:
        module, name = self.line(), self.line()
        args = tuple(self.above_mark())
        self.import_(module, name)
        self.call(self.stack.pop(), args)

    def object_(self) -> None:
        first, *args = self.above_mark()
        self.call(first, tuple(args))

    def extension(self, form: str) -> None:
        self.number(form)
        self.odd("uses the extension registry")
        self.stack.append(Global("copyreg", "extension"))
        self.seen.imports.add(Global("copyreg", "extension"))

    def dict_(self) -> None:
        made: dict[Any, Any] = {}
        self.set_items(made, self.above_mark())
        self.stack.append(made)

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.import_(module, name)

    def tuple_(self, count: int) -> None:
        if len(self.stack) < count:
            raise Broken("a tuple in it lacks parts")
        items = tuple(self.stack[-count:])
        if any(item is _MARK for item in items):
            raise Broken("a tuple in it holds a mark")
        self.stack[-count:] = [items]

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def push_int(self) -> None:
        text = self.line().strip()
        self.stack.append({"00": False, "01": True}.get(text) if text in {"00", "01"} else int(text))

    def long_int(self) -> int:
        count = self.number("<I")
        if count > 4096:
            raise TooMuch(f"a number in it claims {count:,} bytes")
        return int.from_bytes(self.take(count), "little", signed=True)

    def quoted(self) -> None:
        text = self.line().strip()
        if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
            raise Broken("a text in it has no quotes")
        self.stack.append(codecs.escape_decode(text[1:-1].encode("latin-1"))[0].decode("latin-1"))


def _push(value: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(value(m))


_STEPS: dict[bytes, Callable[[_Machine], Any]] = {
    b"(": lambda m: m.stack.append(_MARK),
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.above_mark(),
    b"2": lambda m: m.stack.append(m.stack[-1]),
    b"F": _push(lambda m: float(m.line())),
    b"I": lambda m: m.push_int(),
    b"J": _push(lambda m: m.number("<i")),
    b"K": _push(lambda m: m.number("<B")),
    b"L": _push(lambda m: int(m.line().strip().removesuffix("L"))),
    b"M": _push(lambda m: m.number("<H")),
    b"N": _push(lambda m: None),
    b"P": _push(lambda m: Persistent(m.line())),
    b"Q": _push(lambda m: Persistent(m.stack.pop())),
    b"R": lambda m: m.reduce(),
    b"S": lambda m: m.quoted(),
    b"T": _push(lambda m: m.text(m.number("<I"), "latin-1")),
    b"U": _push(lambda m: m.text(m.number("<B"), "latin-1")),
    b"V": _push(lambda m: m.line().encode("latin-1").decode("raw-unicode-escape")),
    b"X": _push(lambda m: m.text(m.number("<I"))),
    b"a": lambda m: m.add(m.stack[-2], [m.stack.pop()]),
    b"b": lambda m: m.build(),
    b"c": lambda m: m.import_(m.line(), m.line()),
    b"d": lambda m: m.dict_(),
    b"}": _push(lambda m: {}),
    b"e": lambda m: m.add((items := m.above_mark(), m.stack[-1])[1], items),
    b"g": _push(lambda m: m.memo[int(m.line())]),
    b"h": _push(lambda m: m.memo[m.number("<B")]),
    b"i": lambda m: m.instance(),
    b"j": _push(lambda m: m.memo[m.number("<I")]),
    b"l": _push(lambda m: m.above_mark()),
    b"]": _push(lambda m: []),
    b"o": lambda m: m.object_(),
    b"p": lambda m: m.put(int(m.line())),
    b"q": lambda m: m.put(m.number("<B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"s": lambda m: m.set_item(),
    b"t": _push(lambda m: tuple(m.above_mark())),
    b")": _push(lambda m: ()),
    b"u": lambda m: m.set_items((items := m.above_mark(), m.stack[-1])[1], items),
    b"G": _push(lambda m: m.number(">d")),
    b"\x80": lambda m: m.number("<B"),
    b"\x81": lambda m: m.new(keywords=False),
    b"\x82": lambda m: m.extension("<B"),
    b"\x83": lambda m: m.extension("<H"),
    b"\x84": lambda m: m.extension("<i"),
    b"\x85": lambda m: m.tuple_(1),
    b"\x86": lambda m: m.tuple_(2),
    b"\x87": lambda m: m.tuple_(3),
    b"\x88": _push(lambda m: True),
    b"\x89": _push(lambda m: False),
    b"\x8a": _push(lambda m: int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    b"\x8b": _push(lambda m: m.long_int()),
    b"B": _push(lambda m: m.bytes_(m.number("<I"))),
    b"C": _push(lambda m: m.bytes_(m.number("<B"))),
    b"\x8c": _push(lambda m: m.text(m.number("<B"))),
    b"\x8d": _push(lambda m: m.text(m.number("<Q"))),
    b"\x8e": _push(lambda m: m.bytes_(m.number("<Q"))),
    b"\x8f": _push(lambda m: []),
    b"\x90": lambda m: m.add((items := m.above_mark(), m.stack[-1])[1], items),
    b"\x91": _push(lambda m: m.above_mark()),
    b"\x92": lambda m: m.new(keywords=True),
    b"\x93": lambda m: m.stack_global(),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"\x95": lambda m: m.number("<Q"),
    b"\x96": _push(lambda m: m.bytes_(m.number("<Q"))),
    b"\x97": _push(lambda m: m.odd("uses out-of-band buffers")),
    b"\x98": lambda m: None,
}
