"""What tests/watchdog.sh does in a box as the user whose proxy is watched: what must be quick (a signal at a chosen
moment) and what must be counted (the store of incidents against the deaths that were made).

    watchdog_box.py incident SINCE_US FAULT LIMIT_S          one incident, as JSON: the first of that fault opened since
    watchdog_box.py kills COUNT                              kills of the proxy, each when it is active again
    watchdog_box.py watchdog-kills COUNT TAKEN HANGS SEED    kills of the watchdog around kills of the proxy; among them
                                                             so many taken ports and hangs
    watchdog_box.py mix SECONDS SEED                         kills and restarts by a person, around the limit of starts
    watchdog_box.py recorded LIMIT_S [FILE]                  one kill of the proxy, as soon as FILE is there: ms until its
                                                             record, or "never"
    watchdog_box.py acted SINCE_US                           what was done or announced, and who was alerted, since
    watchdog_box.py idle MINUTES                             what the watchdog costs
    watchdog_box.py own NAME                                 owns a bus name and sends FailureSignal as its owner
    watchdog_box.py forge FIELD=VALUE…                       an entry, straight into the journal's socket

Moments are microseconds since 1970.
"""
import glob
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time

STATE = os.path.expanduser("~/.local/state/codex-proxy")
PROXY, SOCKET, WATCHDOG = "codex-proxy.service", "codex-proxy.socket", "codex-watchdog.service"
PORT = 8459
LINE = re.compile(rb'\{"sum":"[0-9a-f]{8}","seq":(\d+),"entry":(.*)\}\n')
# How the deaths are told that are made here.
DEATH = re.compile(r"^(ended|crashed|panicked)\b")


def now_us():
    return time.time_ns() // 1000


def fail(why):
    print(why)
    sys.exit(1)


def until(limit_s, what, wait=0.02):
    """What `what` gives once that is true; None if it is not in time."""
    end = time.monotonic() + limit_s
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            return None
        time.sleep(wait)


def ctl(*arguments):
    return subprocess.run(["systemctl", "--user", *arguments], capture_output=True, text=True)


def show(unit, *names):
    said = ctl("show", unit, *("-p" + name for name in names)).stdout
    values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return [values.get(name, "") for name in names]


def active(unit, but=0):
    """(pid, run) of a unit that is active with another process than that."""
    state, pid, run = show(unit, "ActiveState", "MainPID", "InvocationID")
    return (int(pid), run) if state == "active" and int(pid) not in (0, but) else None


def must_be_active(unit, but=0, limit_s=30):
    return until(limit_s, lambda: active(unit, but)) or fail(f"{unit} did not become active: {show(unit, 'ActiveState', 'Result')}")


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def journal(since_us, *matches):
    """Entries of the journal since a moment: (moment, fields)."""
    said = subprocess.run(["journalctl", "-q", "-b", "-o", "json", f"--since=@{since_us / 1e6:.6f}", *matches],
                          capture_output=True).stdout
    entries = [json.loads(line) for line in said.splitlines()]
    return [(int(e["__REALTIME_TIMESTAMP"]), e) for e in entries if int(e["__REALTIME_TIMESTAMP"]) >= since_us]


def starts(since_us):
    """The moments at which the manager began a start of the proxy."""
    return [at for at, _ in journal(since_us, "USER_UNIT=" + PROXY, "MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5",
                                    f"_PID={manager_pid()}")]


def owner_pid(name):
    """The process that owns a name on the bus."""
    said = subprocess.run(["busctl", "--user", "call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus",
                           "GetConnectionUnixProcessID", "s", name], capture_output=True, text=True)
    return int((said.stdout.split() or [0, 0])[1])


def manager_pid():
    return owner_pid("org.freedesktop.systemd1")


class Store:
    """The watchdog's store, all of it that was ever seen: files that were full go away."""

    def __init__(self, directory=STATE):
        self.directory = directory
        self.entries = {}

    def read(self):
        for name in ("incidents.1.jsonl", "incidents.jsonl"):
            try:
                with open(os.path.join(self.directory, name), "rb") as file:
                    lines = file.readlines()
            except FileNotFoundError:
                continue
            for line in lines:
                match = LINE.fullmatch(line)
                if match and int(match[1]) not in self.entries:
                    body = match[2]
                    # States are large, and everything here is told besides.
                    self.entries[int(match[1])] = None if body.startswith(b'{"state"') else json.loads(body)
        return self

    def told(self):
        """Each fact in order: (moment, incident, kind, what, the input that led to it)."""
        cause = None
        for seq in sorted(self.entries):
            entry = self.entries[seq] or {}
            if "input" in entry:
                cause = entry["input"]
            elif "told" in entry:
                told = entry["told"]
                ((kind, what),) = told["fact"].items()
                yield told["at"]["wall_us"], told["incident"], kind, what, cause

    def deaths(self, runs):
        """Each recorded death in order: (moment, run). `runs`: those that there were, in order."""
        faults = {}
        for at, incident, kind, what, cause in self.told():
            if kind == "opened":
                faults[incident] = what["fault"]
            if kind in ("opened", "again") and DEATH.match(what["evidence"]):
                yield at, run_of(cause, runs)

    def problems(self, finished=True):
        """What must not be in any store."""
        opened, closed, commanded, ended = {}, {}, {}, {}
        for _, incident, kind, what, _ in self.told():
            counter = {"opened": opened, "closed": closed}.get(kind)
            if counter is not None:
                counter[incident] = counter.get(incident, 0) + 1
            counter = {"commanded": commanded, "finished": ended}.get(kind)
            if counter is not None:
                name = tuple(what["command"])
                counter[name] = counter.get(name, 0) + 1
        for what, counter in (("opened", opened), ("closed", closed), ("commanded", commanded), ("finished", ended)):
            for name, times in counter.items():
                if times > 1:
                    yield f"{name} was {what} {times} times"
        for name in set(ended) - set(commanded):
            yield f"{name} finished and was not commanded"
        if finished:
            for name in set(opened) - set(closed):
                yield f"incident {name} did not end"
        for path in glob.glob(os.path.join(self.directory, "*.corrupt-*")):
            yield f"damage: {path}"


def run_of(cause, runs):
    observed = cause["what"]["signal"]["observation"]
    if "exit" in observed:
        return observed["exit"]["invocation"]
    unit = observed["unit"]
    run = unit["invocation"]
    if unit["result"] != "success":
        return run
    # Told by the next run's first word.
    return runs[runs.index(run) - 1] if run in runs[1:] else f"before {run}"


def check_deaths(store, kills, since_us):
    """Each death once; kills: (run, moment) in order. Gives the records."""
    runs = [run for run, _ in kills] + [show(PROXY, "InvocationID")[0]]
    until(60, lambda: len(list(store.read().deaths(runs))) >= len(kills), 0.5)
    records = [(at, run) for at, run in store.deaths(runs) if at >= since_us]
    wrong = []
    for run, at in kills:
        times = sum(1 for _, recorded in records if recorded == run)
        if times != 1:
            wrong.append(f"the death of {run} at {at} is recorded {times} times")
    known = {run for run, _ in kills}
    wrong += [f"a death of {run} is recorded at {at} that nobody made" for at, run in records if run not in known]
    return records, wrong


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def all_closed(store):
    store.read()
    opened = {incident for _, incident, kind, _, _ in store.told() if kind == "opened"}
    return opened == {incident for _, incident, kind, _, _ in store.told() if kind == "closed"}


def runs_of(values):
    """[value, how often in a row]"""
    runs = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return runs


# --- commands ---

def incident(since_us, fault, limit_s):
    """The story of one incident, when it has ended or the time is over."""
    since_us, store, number = int(since_us), Store(), None

    def ended():
        nonlocal number
        facts = [fact for fact in store.read().told() if fact[0] >= since_us]
        if number is None:
            number = next((i for _, i, kind, what, _ in facts if kind == "opened" and what["fault"] == fault), None)
        return number is not None and any(i == number and kind == "closed" for _, i, kind, _, _ in facts)

    until(float(limit_s), ended, 0.1)
    facts = [fact for fact in store.told() if fact[0] >= since_us]
    others = sorted({what["fault"] for _, i, kind, what, _ in facts if kind == "opened" and i != number})
    if number is None:
        print(json.dumps({"fault": None, "others": others}))
        return
    mine = [fact for fact in facts if fact[1] == number]

    def line():
        return next((at for at, entry in journal(since_us, "SYSLOG_IDENTIFIER=codex-watchdog", f"CODEX_INCIDENT=i{number}")
                     if f": {fault} " in entry["MESSAGE"]), None)

    told_at = until(5, line)
    closed = next(((at, what) for at, _, kind, what, _ in mine if kind == "closed"), None)
    print(json.dumps({
        "id": number,
        "fault": fault,
        "others": others,
        "detected_ms": None if told_at is None else round((told_at - since_us) / 1000, 1),
        "decided": runs_of(what["action"] for _, _, kind, what, _ in mine if kind == "decided"),
        "commanded": [what["action"] for _, _, kind, what, _ in mine if kind == "commanded"],
        "outcomes": [what["outcome"] for _, _, kind, what, _ in mine if kind == "finished"],
        "restrained": sorted({what["guard"] for _, _, kind, what, _ in mine if kind == "restrained"}),
        "alerts": [what["text"] for _, _, kind, what, _ in mine if kind == "alerted"],
        "evidence": [what["evidence"] for _, _, kind, what, _ in mine if kind in ("opened", "again")],
        "proven": [what["proof"] for _, _, kind, what, _ in mine if kind == "proven"],
        "ended": closed[1]["end"] if closed else None,
        "why": closed[1]["why"] if closed else None,
        "after_s": round((closed[0] - since_us) / 1e6, 1) if closed else None,
    }))


def kills(count):
    store, begun, made, last = Store().read(), now_us(), [], 0
    for _ in range(int(count)):
        last, run = must_be_active(PROXY, last)
        made.append((run, now_us()))
        kill(last)
        if len(made) % 20 == 0:
            store.read()
    must_be_active(PROXY, last)
    records, wrong = check_deaths(store, made, begun)

    def lines():
        found = [at for at, entry in journal(begun, "SYSLOG_IDENTIFIER=codex-watchdog", "CODEX_FAULT=A1")
                 if re.match(r"i\d+: (A1 .*: ended by signal 9 \(seen|again, \d+ times now: ended by signal 9$)", entry["MESSAGE"])]
        return found if len(found) >= len(records) else None

    told = until(10, lines, 0.3) or []
    if len(told) != len(records):
        wrong.append(f"{len(records)} records, {len(told)} lines in the journal")
    moments = dict(made)
    took = [(line - moments[run]) / 1000 for line, (_, run) in zip(told, records) if run in moments]
    print(f"{len(made)} kills, {len(records)} records; from kill to the record's line in the journal, ms: "
          f"p50 {percentile(took, 0.5):.1f}, p99 {percentile(took, 0.99):.1f}, most {max(took):.1f}")
    finish(wrong)


def finish(wrong):
    for one in wrong:
        print(one)
    sys.exit(1 if wrong else 0)


def watchdog_kills(count, taken, hangs, seed):
    random.seed(int(seed))
    print(f"seed {seed}")
    wrong = []
    store, begun, made, wounds = Store().read(), now_us(), [], 0
    last, guard = 0, must_be_active(WATCHDOG)[0]
    hanging = set(random.sample(range(int(count)), int(hangs)))
    for turn in range(int(count)):
        last, run = must_be_active(PROXY, last)
        guard = must_be_active(WATCHDOG)[0]
        # From within the write to long after; now and then the watchdog dies first.
        delay = 10 ** random.uniform(-5, 0.2)
        if turn in hanging:
            delay = random.uniform(9.5, 12)
        elif random.random() < 0.2:
            delay = -10 ** random.uniform(-5, -0.5)
        made.append((run, now_us()))
        for pause, pid, number in sorted([
                (0, last, signal.SIGSTOP if turn in hanging else signal.SIGKILL), (delay, guard, signal.SIGKILL)]):
            wait = pause - min(delay, 0) - (time.time_ns() / 1e9 - made[-1][1] / 1e6)
            spin_until = time.monotonic() + max(wait, 0)
            if wait > 0.01:
                time.sleep(wait - 0.005)
            while time.monotonic() < spin_until:
                pass
            kill(pid, number)
        wounds += 1
        if turn % 4 == 0:
            store.read()
    must_be_active(PROXY, last)
    guard = must_be_active(WATCHDOG, guard)[0]
    records, found = check_deaths(store, made, begun)
    wrong += found
    if not until(90, lambda: all_closed(store), 0.5):
        wrong.append("not all incidents end")
    wrong += store.problems()
    total = len(starts(begun))
    commanded = sum(1 for at, _, kind, _, _ in store.told() if kind == "commanded" and at >= begun)
    if total != len(made) + commanded:
        wrong.append(f"{len(made)} deaths and {commanded} commands, but {total} starts")
    print(f"{wounds} kills of the watchdog around {len(made)} deaths ({hangs} hangs): {len(records)} records, {total} starts")
    for turn in range(int(taken)):
        wrong += taken_port(turn, int(taken))
    finish(wrong)


def taken_port(turn, turns):
    """A leftover on the port, and the watchdog killed somewhere on the way; with a store of its own."""
    ctl("stop", SOCKET, PROXY)
    ctl("reset-failed", SOCKET, PROXY)
    ctl("stop", WATCHDOG)
    aside = os.path.expanduser(f"~/stores/{now_us()}")
    os.makedirs(aside)
    for path in glob.glob(f"{STATE}/incidents*"):
        os.rename(path, os.path.join(aside, os.path.basename(path)))
    ctl("start", WATCHDOG)
    until(10, lambda: prop("RestartsInWindow"))
    left = subprocess.Popen(["/usr/bin/codex-proxy", "--listen", f"127.0.0.1:{PORT}"], start_new_session=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(10, connects) or fail("the leftover does not listen")
    guard, begun = must_be_active(WATCHDOG)[0], now_us()
    # The announcement takes three seconds; what follows, fractions of one.
    delay = random.choice([10 ** random.uniform(-3, 0), random.uniform(2.9, 3.4), random.uniform(0, 6)])
    start = subprocess.Popen(["systemctl", "--user", "start", SOCKET], stderr=subprocess.DEVNULL)
    time.sleep(delay)
    kill(guard)
    start.wait()
    store, wrong = Store(), []
    if not until(200, lambda: all_closed(store) and any(True for _ in store.told()), 0.3):
        wrong.append("the incident does not end")
    facts = list(store.told())
    sent = [what["action"] for _, _, kind, what, _ in facts if kind == "commanded"]
    ends = [what["end"] for _, _, kind, what, _ in facts if kind == "closed"]
    outcomes = [list(what["outcome"])[0] if isinstance(what["outcome"], dict) else what["outcome"]
                for _, _, kind, what, _ in facts if kind == "finished"]
    began = len(starts(begun))
    print(f"port taken {turn + 1}/{turns}: watchdog killed after {delay:.3f} s: sent {sent}, {outcomes}, {began} starts, "
          f"ends {ends}, {(now_us() - begun) / 1e6:.0f} s")
    wrong += store.problems()
    if began > sent.count("start_proxy"):
        wrong.append(f"{began} starts by {sent.count('start_proxy')} commands")
    if left.poll() is None:
        wrong.append("the leftover lives")
        left.kill()
        left.wait()
    # Once, and nobody is alarmed about what is mended.
    if active(PROXY) is None or ends != ["healed"]:
        wrong.append(f"the proxy is {show(PROXY, 'ActiveState')}, and the ends are {ends}")
    return [f"port taken {turn + 1}: {one}" for one in wrong]


def prop(name):
    face = ["org.codexproxy.Watchdog1", "/org/codexproxy/Watchdog1", "org.codexproxy.Watchdog1"]
    return subprocess.run(["busctl", "--user", "--auto-start=no", "--timeout=2", "get-property", *face, name], capture_output=True,
                          text=True).stdout.strip()


def connects():
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", PORT)) == 0


def mix(seconds, seed):
    """A person restarts, processes die, and the limit of starts is met."""
    random.seed(int(seed))
    print(f"seed {seed}")
    begun, store = now_us(), Store()
    interval = show(PROXY, "StartLimitIntervalUSec")[0]
    refused_by_person, done = [], {"kill": 0, "restart": 0}
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        one = active(PROXY)
        if one and random.random() < 0.6:
            kill(one[0])
            done["kill"] += 1
        elif random.random() < 0.5 and (one or random.random() < 0.1):
            before = now_us()
            if ctl("restart", PROXY).returncode:
                refused_by_person.append((before, now_us()))
            done["restart"] += 1
        time.sleep(random.choice([0.05, 0.3, 1.0, 2.0]))
    time.sleep(1)  # what is on its way to the journal
    store.read()
    wrong = list(store.problems(finished=False))
    commands = [(at, what["action"], what["command"]) for at, _, kind, what, _ in store.told()
                if kind == "commanded" and at >= begun]
    outcomes = {tuple(what["command"]): what["outcome"] for _, _, kind, what, _ in store.told() if kind == "finished"}
    begins = starts(begun - 600_000_000)
    refusals = [at for at, entry in journal(begun, "USER_UNIT=" + PROXY, f"_PID={manager_pid()}")
                if "Start request repeated too quickly" in entry["MESSAGE"]]
    window = {"10min": 600, "20s": 20}.get(interval, 600) * 1_000_000
    for at, action, name in commands:
        before = sum(1 for begin in begins if at - window <= begin < at)
        if before > 5:
            wrong.append(f"{name} {action} was sent after {before} starts")
        outcome = outcomes.get(tuple(name), "none yet")
        if outcome not in ("done", "none yet"):
            wrong.append(f"{name} {action} ended as {outcome}")
        if any(at <= refusal <= at + 300_000 for refusal in refusals) and not any(
                first <= at + 300_000 and at <= last for first, last in refused_by_person):
            wrong.append(f"{name} {action} was refused")
    most = max((sum(1 for begin in begins if first <= begin < first + window) for first in begins), default=0)
    # The manager's own count begins anew after an interval, so it may let through more within a sliding one.
    if window == 600_000_000 and most > 6:
        wrong.append(f"{most} starts within {interval}")
    print(f"limit within {interval}: {done['kill']} kills, {done['restart']} restarts by a person ({len(refused_by_person)} refused); "
          f"{len(begins)} starts, {most} at most within the interval, {len(refusals)} refusals; "
          f"commands of the watchdog: {len(commands)}")
    finish(wrong)


def recorded(limit_s, at_file=None):
    pid, _ = must_be_active(PROXY)
    store = Store().read()
    if at_file:
        open(at_file + ".ready", "w").close()
        until(60, lambda: os.path.exists(at_file), 0.001)
    at = now_us()
    kill(pid)

    def record():
        store.read()
        return next((when for when, what in ((fact[0], fact) for fact in store.told())
                     if when >= at and what[2] in ("opened", "again") and DEATH.match(what[3]["evidence"])), None)

    when = until(float(limit_s), record)
    must_be_active(PROXY, pid)
    print("never" if when is None else f"{(when - at) / 1000:.0f}")


def acted(since_us):
    """Prints what was opened; fails if anybody was told of it, or anything done."""
    found = []
    for at, number, kind, what, _ in Store().read().told():
        if at < int(since_us):
            continue
        if kind in ("opened", "restrained", "closed"):
            print(f"i{number} {kind}: {json.dumps(what)}")
        if kind in ("commanded", "announced", "alerted"):
            found.append(f"i{number} {kind}: {json.dumps(what)}")
    finish(found)


def idle(minutes):
    guard = must_be_active(WATCHDOG)[0]
    with open(f"/proc/{guard}/task/{guard}/children") as file:
        children = [int(pid) for pid in file.read().split()]

    def look(pid):
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        with open(f"/proc/{pid}/stat") as file:
            ticks = file.read().rpartition(") ")[2].split()
        def kib(name):
            return int(fields[name].split()[0])
        wakes = 0
        for path in glob.glob(f"/proc/{pid}/task/*/status"):
            with open(path) as file:
                wakes += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
        return kib("VmRSS"), kib("RssAnon"), (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"), wakes

    before = {pid: look(pid) for pid in [guard, *children]}
    time.sleep(float(minutes) * 60)
    for pid, name in [(guard, "codex-watchdog"), *((pid, "its journalctl") for pid in children)]:
        rss, anonymous, cpu, wakes = look(pid)
        print(f"{name}: {rss / 1024:.1f} MiB resident, {anonymous / 1024:.1f} MiB anonymous; in {minutes} min "
              f"{cpu - before[pid][2]:.2f} s of CPU time, {(wakes - before[pid][3]) / float(minutes) / 60:.2f} wake-ups a second")


class Bus:
    """As much of a client of the session bus as a forger needs; there is none in Python's own library."""

    def __init__(self):
        path = f"/run/user/{os.getuid()}/bus"
        self.link, self.serial = socket.socket(socket.AF_UNIX), 0
        self.link.connect(path)
        self.link.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        assert self.link.recv(256).startswith(b"OK")
        self.link.sendall(b"BEGIN\r\n")
        self.send(1, "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", to="org.freedesktop.DBus")

    def send(self, kind, path, interface, member, signature="", body=b"", to=None):
        self.serial += 1
        fields = b""
        for code, of, text in [(1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", to), (8, "g", signature)]:
            if not text:
                continue
            fields += b"\0" * (-len(fields) % 8) + bytes([code, 1]) + of.encode() + b"\0"
            if of == "g":
                fields += bytes([len(text)]) + text.encode() + b"\0"
            else:
                fields += b"\0" * (-len(fields) % 4) + struct.pack("<I", len(text)) + text.encode() + b"\0"
        head = b"l" + bytes([kind, 0, 1]) + struct.pack("<III", len(body), self.serial, len(fields)) + fields
        self.link.sendall(head + b"\0" * (-len(head) % 8) + body)

    @staticmethod
    def strings(*texts):
        body = b""
        for text in texts:
            body += b"\0" * (-len(body) % 4) + struct.pack("<I", len(text)) + text.encode() + b"\0"
        return body


def own(name):
    bus = Bus()
    body = Bus.strings(name)
    body += b"\0" * (-len(body) % 4) + struct.pack("<I", 0)
    bus.send(1, "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "su", body, "org.freedesktop.DBus")
    for turn in range(5):
        body = Bus.strings(f"evt_forged_{os.getpid()}_{turn}", "panic")
        body += b"\0" * (-len(body) % 4) + struct.pack("<I", 0)
        body += b"\0" * (-len(body) % 8)
        bus.send(4, "/org/codexproxy/Proxy1", "org.codexproxy.Proxy1", "FailureSignal", "ssa{sv}", body)
        time.sleep(0.3)
    print(f"{name} was {'owned' if owner_pid(name) == os.getpid() else 'not owned'} by the forger")


def forge(*fields):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.connect("/run/systemd/journal/socket")
        one.send("".join(field + "\n" for field in fields).encode())


if __name__ == "__main__":
    commands = {"incident": incident, "kills": kills, "watchdog-kills": watchdog_kills, "mix": mix, "recorded": recorded,
                "acted": acted, "idle": idle, "own": own, "forge": forge}
    sys.stdout.reconfigure(line_buffering=True)
    commands[sys.argv[1]](*sys.argv[2:])
