"""Coils, magnets, rectifier boards and the instruments that watch them."""

from __future__ import annotations

import math

from expstar_utils.mini.canvas import Canvas, mix
from expstar_utils.mini.sprites import sprite

COPPER, DARK = "#e07b1f", "#2b2f33"
CYCLES, SAMPLES = 3, 150


def _coil_places(count: int) -> list[float]:
    return {1: [0.0], 2: [-0.19, 0.19], 3: [-0.32, 0.0, 0.32]}.get(count, [])


@sprite
def induction_coils(c: Canvas, count=1, placed=1.0):
    """Clear tube on two feet with `count` (1-3) copper coils; placed 0-1: the coils slide on from the right."""
    count = int(count)
    for x in (-0.46, 0.46):
        c.rect(x - 0.045, -0.06, 0.09, 0.22, fill="#6b7075")
    c.rect(-0.5, 0.13, 1.0, 0.24, fill="#dff1f7", alpha=0.35)
    for y in (0.13, 0.37):
        c.line([(-0.5, y), (0.5, y)], "#55707c", 0.018)
    for i, x in enumerate(_coil_places(count)):
        part = min(max(placed * count - i, 0.0), 1.0)
        x += 1.1 * (1 - part)
        if part <= 0.01:
            continue
        for k in range(4):
            u = x - 0.102 + 0.068 * k
            c.line([(u, 0.02), (u, 0.48)], mix(COPPER, "#7a3a05", 0.25 * (k % 2)), 0.052)
        for y in (0.02, 0.48):
            c.line([(x - 0.125, y), (x + 0.125, y)], "#8a4207", 0.04)


@sprite
def bar_magnet(c: Canvas, lead="#d81e1e", tail="#1f4fd8", lead_text="N", tail_text="S"):
    """Bar magnet, origin at its centre, 1 long; its leading end (colour, letter) lies on the right."""
    c.rect(-0.5, -0.16, 0.5, 0.32, fill=tail, edge=DARK, width=0.02)
    c.rect(0.0, -0.16, 0.5, 0.32, fill=lead, edge=DARK, width=0.02)
    c.text(0.28, 0, lead_text, 0.18, "#ffffff")
    c.text(-0.28, 0, tail_text, 0.18, "#ffffff")


@sprite
def centre_galvanometer(c: Canvas, value=0.0, gain=1.0, letter="G"):
    """Centre-zero meter with two terminals; value * gain in -1..1: needle from far left to far right."""
    c.rect(-0.5, 0, 1.0, 0.78, fill="#33383d", edge="#15181a", width=0.02)
    c.rect(-0.44, 0.14, 0.88, 0.58, fill="#fbfaf2")
    place = min(max(value * gain, -1.0), 1.0)
    for i in range(-4, 5):
        a = math.radians(90 - 16 * i)
        r = 0.42 if i % 4 else 0.38
        c.line([(r * math.cos(a), 0.2 + r * math.sin(a)), (0.47 * math.cos(a), 0.2 + 0.47 * math.sin(a))],
               "#333333", 0.022)
    a = math.radians(90 - 64 * place)
    c.line([(0, 0.2), (0.45 * math.cos(a), 0.2 + 0.45 * math.sin(a))], "#e01010", 0.055)
    c.circle(0, 0.2, 0.055, fill="#222222")
    c.text(0.36, 0.21, letter, 0.09)
    for x, color in ((-0.3, "#d62020"), (0.3, "#111111")):
        c.circle(x, 0.07, 0.055, fill=color, edge="#c9a54a", width=0.02)


@sprite
def dry_cell(c: Canvas, leads=0.0):
    """Cell lying on its side, origin at its centre, 1 long; leads in units hang down from its two ends."""
    if leads > 0.01:
        c.line([(-0.5, 0), (-0.62, 0), (-0.62, -leads)], "#d62020", 0.05)
        c.line([(0.5, 0), (0.62, 0), (0.62, -leads)], "#111111", 0.05)
    c.rect(-0.56, -0.07, 0.07, 0.14, fill="#b9bec2")
    c.rect(-0.5, -0.19, 0.3, 0.38, fill="#c98a2b", edge=DARK, width=0.02)
    c.rect(-0.2, -0.19, 0.7, 0.38, fill="#24282c", edge=DARK, width=0.02)
    c.text(-0.34, 0, "+", 0.16)
    c.rect(0.28, -0.02, 0.13, 0.045, fill="#ffffff")


def _diode(c: Canvas, x: float, y: float, sign: float) -> None:
    s = 0.085 * (1 if sign >= 0 else -1)
    c.line([(x - 0.15, y), (x + 0.15, y)], "#d9dde0", 0.018)
    c.poly([(x - s, y + 0.085), (x - s, y - 0.085), (x + s, y)], fill="#ffe23a", edge="#1a1a1a", width=0.014)
    c.line([(x + s, y - 0.09), (x + s, y + 0.09)], "#1a1a1a", 0.034)


def _can(c: Canvas, x: float, y: float, size: float) -> None:
    """Capacitor standing at (x, y): small orange or large blue."""
    big = size > 0.6
    w, h, color = (0.13, 0.46, "#2456d6") if big else (0.075, 0.2, "#f28a1c")
    c.rect(x - w, y, 2 * w, h, fill=color, edge=DARK, width=0.014)
    c.ellipse(x, y + h, w, w * 0.3, fill="#c7ccd1", edge=DARK, width=0.012)
    c.rect(x + w * 0.35, y + 0.02, w * 0.4, h - 0.05, fill="#ffffff", alpha=0.85)


@sprite
def rectifier_board(c: Canvas, diodes=1, sign=1.0, placed=1.0, capacitor=0.0, drop=0.0, load=1.0):
    """Board with 1, 2 or 4 diodes (sign -1: pointing left; placed 0-1), load 0 or 1, capacitor; blue pads: supply.

    capacitor 0 none, 0.5 small orange, 1 large blue; drop: height in units at which it still hangs above its place.
    """
    c.rect(-0.5, 0, 1.0, 0.58, fill="#1f7a4d", edge="#0e4a2c", width=0.02)
    for x in (-0.46, 0.46):
        for y in (0.04, 0.54):
            c.circle(x, y, 0.02, fill="#d8c27a")
    places = {1: [(-0.23, 0.29)], 2: [(-0.23, 0.42), (-0.23, 0.16)],
              4: [(-0.33, 0.42), (-0.33, 0.16), (-0.05, 0.42), (-0.05, 0.16)]}[int(diodes)]
    track, bridge = "#cfa64a", len(places) == 4
    c.line([(0.1, 0.16), (0.1, 0.42)], track, 0.022)
    c.line([(0.41, 0.06), (-0.46, 0.06), (-0.46, 0.42 if bridge else 0.06)], track, 0.022)
    for y in sorted({y for _, y in places}):
        c.line([(-0.46, y), (0.1, y)], track, 0.022)
        c.circle(-0.19 if bridge else -0.45, y, 0.03, fill="#63c7ff", edge="#0d4f78", width=0.012)
    for i, (x, y) in enumerate(places):
        part = min(max(placed * len(places) - i, 0.0), 1.0)
        if part > 0.01:
            _diode(c, x, y + 0.6 * (1 - part), sign)
    if load > 0.5:
        c.line([(0.1, 0.42), (0.1, 0.5), (0.41, 0.5), (0.41, 0.06)], track, 0.022)
        c.rect(0.36, 0.12, 0.1, 0.32, fill="#e9d3a4", edge=DARK, width=0.014)
        for y, color in ((0.17, "#7a3b12"), (0.25, "#111111"), (0.33, "#d62020")):
            c.rect(0.36, y, 0.1, 0.04, fill=color)
    if capacitor > 0.1:
        _can(c, 0.23, 0.08 + drop, capacitor)


@sprite
def solder_iron(c: Canvas):
    """Soldering iron held from the upper right, origin at its tip, with a wisp of smoke."""
    c.line([(0, 0), (0.28, 0.28)], "#b9bec2", 0.05)
    c.line([(0.26, 0.26), (0.4, 0.4)], "#7d848a", 0.1)
    c.line([(0.42, 0.42), (0.85, 0.85)], "#c0392b", 0.16)
    for k in range(4):
        rise = (0.25 * k + 0.6 * c.time_s) % 1.0
        c.circle(-0.04 + 0.05 * math.sin(7 * rise + k), 0.05 + 0.5 * rise, 0.035 + 0.05 * rise, fill="#9aa0a5",
                 alpha=0.6 * (1 - rise))


def _levels(diodes: int, capacitor: float) -> list[float]:
    """Output over CYCLES cycles in units of the peak; no diode: the sine itself."""
    wave = [math.sin(2 * math.pi * CYCLES * i / SAMPLES) for i in range(-SAMPLES // CYCLES, SAMPLES + 1)]
    if diodes == 0:
        return wave[SAMPLES // CYCLES:]
    wave = [max(v, 0.0) if diodes == 1 else abs(v) for v in wave]
    if capacitor > 0.1:
        droop = (0.6 if capacitor < 0.6 else 0.05) * CYCLES / SAMPLES
        for i in range(1, len(wave)):
            wave[i] = max(wave[i], wave[i - 1] - droop)
    return wave[SAMPLES // CYCLES:]


@sprite
def scope_screen(c: Canvas, diodes=0, capacitor=0.0, sign=1.0, sweep=1.0, color="#4dff6a"):
    """Oscilloscope. diodes 0 (sine), 1, 2 or 4; capacitor 0, 0.5, 1; sign -1: below zero; sweep 0-1: drawn part."""
    c.rect(-0.5, 0, 1.0, 0.86, fill="#b7bec4", edge="#3a3f44", width=0.02)
    c.rect(-0.46, 0.05, 0.92, 0.77, fill="#06180f", edge="#111111", width=0.015)
    for k in range(1, 8):
        c.line([(-0.46 + 0.115 * k, 0.05), (-0.46 + 0.115 * k, 0.82)], "#1d4a36", 0.006)
    for k in (1, 2, 4, 5):
        c.line([(-0.46, 0.05 + 0.1283 * k), (0.46, 0.05 + 0.1283 * k)], "#1d4a36", 0.006)
    c.line([(-0.46, 0.435), (0.46, 0.435)], "#ffffff", 0.014)
    levels = _levels(int(diodes), capacitor)
    count = int(sweep * SAMPLES)
    way = 1 if sign >= 0 else -1
    points = [(-0.45 + 0.9 * i / SAMPLES, 0.435 + 0.31 * way * levels[i]) for i in range(count + 1)]
    if len(points) > 1:
        c.line(points, mix(color, "#06180f", 0.55), 0.06, 0.6)
        c.line(points, color, 0.028)
    if count > 0:
        c.circle(*points[-1], 0.03 + 0.006 * math.sin(20 * c.time_s), fill="#eaffee")


@sprite
def step_transformer(c: Canvas, on=1.0):
    """Mains transformer: iron core, a red and a blue winding, a lamp that lights when on is 1."""
    c.rect(-0.45, 0, 0.9, 0.8, fill="#5c646b", edge=DARK, width=0.025)
    c.rect(-0.22, 0.17, 0.44, 0.46, fill="#dfe3e6", edge=DARK, width=0.02)
    for x, color in ((-0.33, "#c62828"), (0.33, "#1f5fd0")):
        for k in range(6):
            c.line([(x - 0.15, 0.2 + 0.08 * k), (x + 0.15, 0.2 + 0.08 * k)], color, 0.055)
    c.circle(0, 0.4, 0.1, fill="#ff9d1a" if on > 0.5 else "#6a4a25", edge=DARK, width=0.02)
