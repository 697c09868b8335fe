#!/usr/bin/env python3
"""Composes and synthesises the templates' music and effects: `python3 templates/make/music.py [slug]`.

Everything is computed here, sample by sample: wavetable pads and bass, plucked strings, drums, a room. ffmpeg levels the result
to -16 LUFS and encodes it. The files are committed, so only who changes a piece has to run this.
"""

import json
import math
import random
import struct
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent.parent
RATE = 44100
LOUDNESS = -16.0
TABLE = 2048


# ---- sound ------------------------------------------------------------------------------------------------------


def table(partials):
    """One period of a wave from its partials' strengths."""
    wave_ = [sum(s * math.sin(2 * math.pi * (n + 1) * i / TABLE) for n, s in enumerate(partials)) for i in range(TABLE)]
    peak = max(map(abs, wave_))
    return [v / peak for v in wave_]


WARM = table([1 / (n + 1) ** 1.35 for n in range(14)])
ROUND = table([1, 0.42, 0.2, 0.06])
BRIGHT = table([1, 0.5, 0.33, 0.24, 0.17, 0.1, 0.08, 0.05])


def pitch(note):
    """Hertz of a MIDI note."""
    return 440 * 2 ** ((note - 69) / 12)


class Track:
    """A stereo buffer of `seconds`, and what goes into its room."""

    def __init__(self, seconds):
        self.n = int(seconds * RATE)
        self.left, self.right, self.send = [0.0] * self.n, [0.0] * self.n, [0.0] * self.n

    def add(self, at, samples, gain=1.0, pan=0.0, room=0.0):
        """`pan` from -1 (left) to 1 (right)."""
        start = int(at * RATE)
        gl, gr = gain * math.cos((pan + 1) * math.pi / 4), gain * math.sin((pan + 1) * math.pi / 4)
        left, right, send = self.left, self.right, self.send
        for k, v in enumerate(samples[: max(0, self.n - start)], start):
            left[k] += v * gl
            right[k] += v * gr
            if room:
                send[k] += v * gain * room

    def mix(self, other, gain=1.0):
        for mine, theirs in ((self.left, other.left), (self.right, other.right), (self.send, other.send)):
            for k in range(min(len(mine), len(theirs))):
                mine[k] += theirs[k] * gain

    def duck(self, beats, depth=0.55, back=0.26):
        """Makes room for each kick: the gentle pumping that holds a mix together."""
        length = int(back * RATE)
        curve = [1 - depth * (1 - k / length) ** 2 for k in range(length)]
        for beat in beats:
            start = int(beat * RATE)
            for k in range(start, min(start + length, self.n)):
                c = curve[k - start]
                self.left[k] *= c
                self.right[k] *= c
                self.send[k] *= c

    def reverberate(self, wet=1.0):
        """Four combs and two all-passes a side (Schroeder's room)."""
        for side, combs in ((self.left, (1557, 1617, 1491, 1422)), (self.right, (1580, 1640, 1514, 1445))):
            total = [0.0] * self.n
            for length in combs:
                line, at, low = [0.0] * length, 0, 0.0
                for k, v in enumerate(self.send):
                    out = line[at]
                    low = out * 0.7 + low * 0.3
                    line[at] = v + low * 0.8
                    at = at + 1 if at + 1 < length else 0
                    total[k] += out
            for length in (225, 556):
                line, at = [0.0] * length, 0
                for k, v in enumerate(total):
                    out = line[at]
                    line[at] = v + out * 0.5
                    total[k] = out - v * 0.5
                    at = at + 1 if at + 1 < length else 0
            for k, v in enumerate(total):
                side[k] += v * 0.25 * wet


def tone(wave_, hertz, seconds, attack=0.01, release=0.1, decay=None, bend=0.0):
    n, phase, out = int((seconds + release) * RATE), 0.0, []
    hold, up, down = int(seconds * RATE), max(1, int(attack * RATE)), max(1, int(release * RATE))
    step, fall, level = hertz * TABLE / RATE, math.exp(-1 / (decay * RATE)) if decay else 1.0, 1.0
    for k in range(n):
        level *= fall
        gate = min(1.0, k / up) * (1.0 if k < hold else max(0.0, 1 - (k - hold) / down))
        out.append(wave_[int(phase) % TABLE] * level * gate)
        phase += step * (1 + bend * math.exp(-k / 900) if bend else 1)
    return out


def string(hertz, seconds, chance, bright=0.5):
    """A plucked string (Karplus and Strong)."""
    length = max(2, int(RATE / hertz))
    line = [chance.uniform(-1, 1) for _ in range(length)]
    line = [(a + b) / 2 for a, b in zip(line, line[1:] + line[:1])]
    out, at = [], 0
    for k in range(int(seconds * RATE)):
        after = at + 1 if at + 1 < length else 0
        v = line[at]
        out.append(v)
        line[at] = (v * bright + line[after] * (1 - bright)) * 0.9965
        at = after
    tail = int(0.05 * RATE)
    for k in range(1, tail):
        out[-k] *= k / tail
    return out


def noise(seconds, chance, decay, low=0.0, high=1.0):
    """Noise that dies away; `high` below 1 darkens it, `low` takes the bass out."""
    out, dark, slow, level, fall = [], 0.0, 0.0, 1.0, math.exp(-1 / (decay * RATE))
    for _ in range(int(seconds * RATE)):
        dark += (chance.uniform(-1, 1) - dark) * high
        slow += (dark - slow) * (1 - low)
        level *= fall
        out.append((dark - slow if low else dark) * level)
    return out


def kick():
    out, phase = [], 0.0
    for k in range(int(0.34 * RATE)):
        t = k / RATE
        phase += 2 * math.pi * (46 + 130 * math.exp(-t * 34)) / RATE
        out.append(math.sin(phase) * math.exp(-t * 9.5) * min(1, k / 40))
    return out


def clap(chance):
    out = [0.0] * int(0.3 * RATE)
    for wait, size in ((0, 0.6), (0.011, 0.7), (0.023, 1)):
        for k, v in enumerate(noise(0.22, chance, 0.05, low=0.72, high=0.62), int(wait * RATE)):
            if k < len(out):
                out[k] += v * size
    return out


def whoosh(seconds, chance, peak=0.55, low=0.012, high=0.22):
    """Noise through a band that opens and closes, with a soft swell."""
    out, a, b = [], 0.0, 0.0
    n = int(seconds * RATE)
    for k in range(n):
        x = k / n
        swell = (x / peak) ** 2.4 if x < peak else ((1 - x) / (1 - peak)) ** 1.6
        width = low + (high - low) * swell
        a += (chance.uniform(-1, 1) - a) * width
        b += (a - b) * 0.02
        out.append((a - b) * swell)
    return out


# ---- pieces -----------------------------------------------------------------------------------------------------


def piece(seed, tempo, chords, bass, motif, bars, drums, swing=0.0, tail=2.6, pad=0.036, strings=0.5):
    """`chords`: a list of MIDI notes a bar; `motif`: steps through the chord in sixteenths (None rests);
    `drums`: bar -> set of parts (kick, clap, hat, shaker). The last chord rings out for `tail` seconds."""
    chance, beat = random.Random(seed), 60 / tempo
    bar = 4 * beat
    length = bars * bar + tail
    chordal, plucks, low, beatbox = Track(length), Track(length), Track(length), Track(length)
    kicks, the_kick = [], kick()
    for n in range(bars + 1):
        start, notes, last = n * bar, chords[n % len(chords)] if n < bars else chords[0], n == bars
        hold = 1.3 if last else bar
        for place, note in enumerate(notes):
            for detune, pan in ((0.9975, -0.75), (1.0025, 0.75)):
                chordal.add(
                    start,
                    tone(
                        WARM,
                        pitch(note) * detune,
                        hold,
                        0.22 if not last else 0.01,
                        0.9 if last else 0.35,
                        decay=1.4 if last else None,
                    ),
                    pad,
                    pan * (0.4 + 0.15 * place),
                    0.35,
                )
        root = bass[n % len(bass)] if n < bars else bass[0]
        if last:
            low.add(start, tone(ROUND, pitch(root), 1.2, 0.004, 0.8, decay=0.8), 0.3)
            beatbox.add(start, the_kick, 0.75)
            beatbox.add(start, noise(1.8, chance, 0.5, low=0.6, high=0.8), 0.05, 0, 0.5)
            for place, note in enumerate(notes):
                plucks.add(
                    start + place * 0.03,
                    string(pitch(note + 12), 2.2, chance),
                    strings * 0.8,
                    (-0.5, 0.5, -0.2, 0.2)[place % 4],
                    0.6,
                )
            continue
        if "kick" in drums(n) or n > 0:
            for eighth in range(8):
                if eighth in (0, 3, 4, 6, 7) or "kick" in drums(n):
                    accent = 1.0 if eighth % 4 == 0 else 0.72
                    note = root + (12 if eighth == 7 else 0)
                    low.add(
                        start + eighth * beat / 2,
                        tone(ROUND, pitch(note), beat * 0.38, 0.006, 0.05, decay=0.5, bend=0.02),
                        0.21 * accent,
                    )
        for step in range(16):
            move = motif[(step + 16 * (n % (len(motif) // 16))) % len(motif)]
            if move is None:
                continue
            note = notes[move % len(notes)] + 12 * (move // len(notes)) + 12
            late = swing * beat / 4 if step % 2 else 0
            power = chance.uniform(0.8, 1) * (1 if step % 4 == 0 else 0.8)
            sound = string(pitch(note), 0.9, chance)
            when, pan = start + step * beat / 4 + late, 0.5 * math.sin(step * 1.7)
            plucks.add(when, sound, strings * power, pan, 0.4)
            plucks.add(when + beat * 0.75, sound, strings * power * 0.26, -pan, 0.3)
        parts = drums(n)
        for quarter in range(4):
            when = start + quarter * beat
            if "kick" in parts:
                kicks.append(when)
                beatbox.add(when, the_kick, 0.66)
            if "clap" in parts and quarter % 2:
                beatbox.add(when, clap(chance), 0.62, 0.05, 0.28)
            if "hat" in parts:
                beatbox.add(when + beat / 2, noise(0.16, chance, 0.035, low=0.9, high=1), 0.36, 0.3, 0.05)
            if "shaker" in parts:
                for sixteenth in range(4):
                    late = swing * beat / 4 if sixteenth % 2 else 0
                    beatbox.add(
                        when + sixteenth * beat / 4 + late,
                        noise(0.07, chance, 0.018, low=0.85, high=0.8),
                        (0.2, 0.1, 0.26, 0.1)[sixteenth],
                        -0.35,
                    )
        if n + 1 < bars and "fill" in parts:
            for sixteenth in (12, 13, 14, 15):
                beatbox.add(start + sixteenth * beat / 4, clap(chance), 0.1 + 0.07 * (sixteenth - 12), -0.2, 0.2)
    for track in (chordal, plucks):
        track.duck(kicks, 0.5)
    low.duck(kicks, 0.4, 0.16)
    for track in (plucks, low, beatbox):
        chordal.mix(track)
    chordal.reverberate()
    return chordal


def promo():
    """120 to the minute: a bar is two seconds, so beats fall on frames 0, 15, 30 … of 30 a second."""
    chords = [[57, 60, 64, 71], [53, 57, 60, 67], [60, 64, 67, 74], [55, 59, 62, 69]]
    motif = [
        0,
        None,
        2,
        None,
        3,
        None,
        2,
        4,
        None,
        2,
        None,
        3,
        5,
        None,
        3,
        None,
        0,
        None,
        2,
        None,
        3,
        None,
        6,
        None,
        4,
        None,
        3,
        2,
        None,
        3,
        None,
        2,
    ]

    def drums(n):
        if n == 0:
            return {"shaker", "fill"}
        return {"kick", "clap", "hat", "shaker"} | ({"fill"} if n % 4 == 3 else set())

    return piece(7, 120, chords, [45, 41, 36, 43], motif, 11, drums)


def lower_third():
    """96 to the minute, quiet: it stands under a voice."""
    chords = [[60, 64, 67, 71], [57, 60, 64, 67], [53, 57, 60, 64], [55, 59, 62, 67]]
    motif = [0, None, None, 2, None, None, 3, None, 1, None, None, 2, None, 4, None, None]
    return piece(
        19,
        96,
        chords,
        [36, 45, 41, 43],
        motif,
        6,
        lambda n: {"shaker"} if n < 1 else {"kick", "shaker", "hat"} if n < 3 else {"kick", "clap", "shaker"},
        pad=0.042,
        strings=0.46,
    )


def story():
    """124 to the minute, swung and bright."""
    chords = [[55, 59, 62, 66], [52, 55, 59, 62], [60, 64, 67, 71], [57, 62, 66, 69]]
    motif = [0, None, 4, 2, None, 3, None, 4, 5, None, 4, None, 2, 3, None, 4]
    return piece(
        31,
        124,
        chords,
        [43, 40, 36, 38],
        motif,
        9,
        lambda n: {"kick", "clap", "hat", "shaker"} | ({"fill"} if n % 4 == 3 else set()),
        swing=0.22,
        strings=0.54,
    )


def sweep(seed, seconds, peak, high):
    track = Track(seconds + 0.4)
    for pan in (-0.8, 0.8):
        track.add(0, whoosh(seconds, random.Random(seed + int(pan * 10)), peak, high=high), 0.9, pan, 0.25)
    track.reverberate(0.6)
    return track


def chime(seed):
    """A small bell for a badge or a price."""
    track, chance = Track(1.6), random.Random(seed)
    for wait, note, gain in ((0, 83, 0.5), (0.07, 88, 0.5), (0.14, 95, 0.35)):
        track.add(wait, tone(BRIGHT, pitch(note), 0.9, 0.002, 0.4, decay=0.22), gain * 0.5, chance.uniform(-0.4, 0.4), 0.5)
    track.reverberate()
    return track


# ---- files ------------------------------------------------------------------------------------------------------


def save(track, out, loudness=None):
    """Encodes to AAC: music is levelled to `loudness`, an effect to a peak of -3 dB."""
    peak = max(max(map(abs, track.left)), max(map(abs, track.right)))
    frames = bytearray()
    for a, b in zip(track.left, track.right):
        frames += struct.pack("<hh", *(int(32767 * 0.7 * v / peak) for v in (a, b)))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        wav = str(Path(room, "a.wav"))
        with wave.open(wav, "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(bytes(frames))
        if loudness is None:
            chain, rate = "volume=0dB", "96k"
        else:
            told = subprocess.run(
                ["ffmpeg", "-hide_banner", "-i", wav, "-af", "highpass=f=28,loudnorm=print_format=json", "-f", "null", "-"],
                capture_output=True,
                text=True,
                check=True,
            ).stderr
            gain = loudness - float(json.loads(told[told.rindex("{") : told.rindex("}") + 1])["input_i"])
            chain, rate = f"highpass=f=28,volume={gain:.2f}dB,alimiter=limit=0.84:level=false:attack=3:release=60", "128k"
        subprocess.run(
            [
                "ffmpeg",
                "-y",
                "-v",
                "error",
                "-i",
                wav,
                "-af",
                chain,
                "-ar",
                "48000",
                "-c:a",
                "aac",
                "-b:a",
                rate,
                "-map_metadata",
                "-1",
                "-fflags",
                "+bitexact",
                "-flags:a",
                "+bitexact",
                "-movflags",
                "+faststart",
                str(out),
            ],
            check=True,
        )
    print(f"{out.relative_to(TEMPLATES)}: {track.n / RATE:.1f} s, {out.stat().st_size // 1024} KB")


WORK = {
    "promo": {"music": (promo, LOUDNESS), "whoosh": (lambda: sweep(3, 0.95, 0.45, 0.3), None)},
    "lower-third": {"music": (lower_third, LOUDNESS), "whoosh": (lambda: sweep(5, 1.1, 0.4, 0.2), None)},
    "story": {"music": (story, LOUDNESS), "whoosh": (lambda: sweep(9, 0.8, 0.5, 0.34), None), "chime": (lambda: chime(2), None)},
}

if __name__ == "__main__":
    for slug, sounds in WORK.items():
        if len(sys.argv) < 2 or slug in sys.argv[1:]:
            for name, (make, loudness) in sounds.items():
                save(make(), TEMPLATES / slug / "audio" / f"{name}.m4a", loudness)
