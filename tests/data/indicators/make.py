"""Makes talib.json: what TA-Lib's C library (PyPI TA-Lib) says of a made-up series, each value checked here against a formula
written out by hand with plain Python floats. Run: `pip install TA-Lib numpy && python make.py > talib.json`."""
import json
import random

import numpy as np
import talib

random.seed(20261122)
N = 160
bars, last = [], 10_000
for _ in range(N):
    o = last + random.randint(-40, 40)
    c = o + random.randint(-120, 120)
    h = max(o, c) + random.randint(0, 60)
    l = min(o, c) - random.randint(0, 60)
    bars.append([o, h, l, c, random.randint(0, 5_000)])
    last = c
O, H, L, C, V = (np.array(x, dtype=float) for x in zip(*bars))
O, H, L, C = O / 100, H / 100, L / 100, C / 100


def sma(x, n):
    return [None if i < n - 1 else sum(x[i - n + 1:i + 1]) / n for i in range(len(x))]


def wma(x, n):
    w = n * (n + 1) / 2
    return [None if i < n - 1 else sum((k + 1) * x[i - n + 1 + k] for k in range(n)) / w for i in range(len(x))]


def ema(x, n, first=None):
    """Seeded with the simple average of the n values before `first` and it."""
    first = n - 1 if first is None else first
    out = [None] * len(x)
    out[first] = sum(x[first - n + 1:first + 1]) / n
    for i in range(first + 1, len(x)):
        out[i] = out[i - 1] + 2 / (n + 1) * (x[i] - out[i - 1])
    return out


def rsi(x, n):
    out = [None] * len(x)
    d = [x[i] - x[i - 1] for i in range(1, len(x))]
    up, down = sum(max(v, 0) for v in d[:n]) / n, sum(max(-v, 0) for v in d[:n]) / n
    out[n] = 100 * up / (up + down)
    for i in range(n + 1, len(x)):
        up, down = (up * (n - 1) + max(d[i - 1], 0)) / n, (down * (n - 1) + max(-d[i - 1], 0)) / n
        out[i] = 100 * up / (up + down)
    return out


def bbands(x, n, k):
    mid = sma(x, n)
    dev = [None if m is None else (sum((v - m) ** 2 for v in x[i - n + 1:i + 1]) / n) ** 0.5 for i, m in enumerate(mid)]
    return [None if m is None else m + k * s for m, s in zip(mid, dev)], mid, [None if m is None else m - k * s for m, s in zip(mid, dev)]


def atr(n):
    tr = [max(H[i] - L[i], abs(H[i] - C[i - 1]), abs(L[i] - C[i - 1])) for i in range(1, N)]
    out = [None] * N
    out[n] = sum(tr[:n]) / n
    for i in range(n + 1, N):
        out[i] = (out[i - 1] * (n - 1) + tr[i - 1]) / n
    return out


def stoch(k, s, d):
    raw = [None if i < k - 1 else 100 * (C[i] - min(L[i - k + 1:i + 1])) / (max(H[i - k + 1:i + 1]) - min(L[i - k + 1:i + 1])) for i in range(N)]
    slow = [None if i < k + s - 2 else sum(raw[i - s + 1:i + 1]) / s for i in range(N)]
    line = [None if i < k + s + d - 3 else sum(slow[i - d + 1:i + 1]) / d for i in range(N)]
    return [None if line[i] is None else slow[i] for i in range(N)], line


def obv():
    out = [V[0]]
    for i in range(1, N):
        out.append(out[-1] + (V[i] if C[i] > C[i - 1] else -V[i] if C[i] < C[i - 1] else 0))
    return out


def adx(n):
    """Wilder 1978: the first sums have n - 1 terms, as TA-Lib has them."""
    pdm = [0.0] + [max(H[i] - H[i - 1], 0) if H[i] - H[i - 1] > L[i - 1] - L[i] else 0.0 for i in range(1, N)]
    mdm = [0.0] + [max(L[i - 1] - L[i], 0) if L[i - 1] - L[i] > H[i] - H[i - 1] else 0.0 for i in range(1, N)]
    tr = [0.0] + [max(H[i] - L[i], abs(H[i] - C[i - 1]), abs(L[i] - C[i - 1])) for i in range(1, N)]
    p, m, t = sum(pdm[1:n]), sum(mdm[1:n]), sum(tr[1:n])
    dx, out = [], [None] * N
    for i in range(n, N):
        p, m, t = p - p / n + pdm[i], m - m / n + mdm[i], t - t / n + tr[i]
        dx.append(100 * abs(p - m) / (p + m))
        if len(dx) == n:
            out[i] = sum(dx) / n
        elif len(dx) > n:
            out[i] = (out[i - 1] * (n - 1) + dx[-1]) / n
    return out


def macd(f, s, g):
    """All begin where the signal does; the fast average is seeded at the same bar as the slow one."""
    fast, slow = ema(C, f, s - 1), ema(C, s)
    diff = [a - b for a, b in zip(fast[s - 1:], slow[s - 1:])]
    sig = [None] * (s - 1) + ema(diff, g)
    line = [None] * (s - 1) + diff
    line = [None if sig[i] is None else line[i] for i in range(N)]
    return line, sig, [None if sig[i] is None else line[i] - sig[i] for i in range(N)]


CASES = [
    ("sma", {"period": 10}, {"sma": (talib.SMA(C, 10), sma(C, 10))}),
    ("ema", {"period": 12}, {"ema": (talib.EMA(C, 12), ema(C, 12))}),
    ("wma", {"period": 9}, {"wma": (talib.WMA(C, 9), wma(C, 9))}),
    ("rsi", {"period": 14}, {"rsi": (talib.RSI(C, 14), rsi(C, 14))}),
    ("macd", {"fast": 12, "slow": 26, "signal": 9}, dict(zip(["macd", "signal", "histogram"], zip(talib.MACD(C, 12, 26, 9), macd(12, 26, 9))))),
    ("bbands", {"period": 20, "deviations": 2.5}, dict(zip(["upper", "middle", "lower"], zip(talib.BBANDS(C, 20, 2.5, 2.5), bbands(C, 20, 2.5))))),
    ("atr", {"period": 14}, {"atr": (talib.ATR(H, L, C, 14), atr(14))}),
    ("adx", {"period": 10}, {"adx": (talib.ADX(H, L, C, 10), adx(10))}),
    ("stoch", {"k": 14, "smoothing": 3, "d": 4}, dict(zip(["k", "d"], zip(talib.STOCH(H, L, C, 14, 3, 0, 4, 0), stoch(14, 3, 4))))),
    ("obv", {}, {"obv": (talib.OBV(C, V), obv())}),
]
cases = []
for name, parameters, lines in CASES:
    told = {}
    for line, (theirs, ours) in lines.items():
        theirs = [None if np.isnan(v) else float(v) for v in theirs]
        for i, (a, b) in enumerate(zip(theirs, ours)):
            assert (a is None) == (b is None), (name, line, i, a, b)
            assert a is None or abs(a - b) <= 1e-9 * max(1, abs(a)), (name, line, i, a, b)
        told[line] = [None if v is None else float(f"{v:.13g}") for v in theirs]
    cases.append({"indicator": name, "parameters": parameters, "lines": told})
# VWAP is TA-Lib's newest: by hand, of two days that the bars are cut into at bar 100. The price is that of the bar: (h + l + c) / 3.
values, pv, vol = [], 0.0, 0.0
for i in range(N):
    if i == 100:
        pv, vol = 0.0, 0.0
    pv, vol = pv + (H[i] + L[i] + C[i]) / 3 * V[i], vol + V[i]
    values.append(float(f"{pv / vol:.13g}") if V[i] > 0 else None)
cases.append({"indicator": "vwap", "parameters": {}, "lines": {"vwap": values}})
provenance = f"make.py, PyPI TA-Lib {talib.__version__} (C library {talib.__ta_version__.decode()}), numpy {np.__version__}; prices are cents"
print(json.dumps({"provenance": provenance, "second_day_from": 100, "bars": bars, "cases": cases}))
