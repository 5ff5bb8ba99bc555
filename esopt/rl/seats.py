"""What threads play compiled episodes with: states of the world, and memory for the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Seat(NamedTuple):
    """What one thread at a time has: states, kept alive here, their addresses, room and marks for the kernel."""

    states: list[Array]
    addresses: NDArray[np.uintp]
    room: Array
    marks: NDArray[np.int64]

    def arguments(self, lanes: int) -> tuple[NDArray[np.uintp], Array, NDArray[np.int64]]:
        """Return what the kernel gets for ``lanes`` episodes at a time."""
        most = len(self.addresses)
        return self.addresses[:lanes], self.room[: lanes * (len(self.room) // most)], self.marks[: 4 * lanes]


class Seats:
    """The seats of an engine's threads.

    Parameters
    ----------
    name, new_state : of the world.
    lanes : episodes that a thread has at a time, at most.
    room : numbers that the kernel needs for each of them.
    """

    def __init__(self, name: str, new_state: Callable[[], Array], lanes: int, room: int) -> None:
        self._name, self._new_state, self._lanes, self._room = name, new_state, lanes, room
        self._seats: dict[int, Seat] = {}

    def __getitem__(self, place: tuple[int, int]) -> Seat:
        """Return the seat of a thread, with states for so many episodes at a time: seats[thread, lanes].

        Raises
        ------
        TypeError  for a state that is no array for compiled code, or that is there already.
        """
        thread, lanes = place
        if thread not in self._seats:
            room, marks = own_lines(self._lanes * self._room), own_lines(4 * self._lanes).view(np.int64)
            self._seats[thread] = Seat([], np.zeros(self._lanes, np.uintp), room, marks)
        seat = self._seats[thread]
        for lane in range(len(seat.states), lanes):
            state = self._state()
            seat.addresses[lane] = state.ctypes.data
            seat.states.append(state)
        return seat

    def clear(self) -> None:
        """Forget all of them: threads that still have one keep it for themselves."""
        self._seats = {}

    def _state(self) -> Array:
        """Return a new state, checked."""
        state = self._new_state()
        if not isinstance(state, np.ndarray) or state.dtype != np.float64 or state.ndim != 1 or not state.flags.carray:
            what = f"{state.dtype} of shape {state.shape}" if isinstance(state, np.ndarray) else type(state).__name__
            raise TypeError(
                f"new_state() of {self._name} returned {what}. Return a one-dimensional, contiguous, writable array of "
                "float64."
            )
        if any(np.shares_memory(state, other) for seat in self._seats.values() for other in seat.states):
            raise TypeError(
                f"new_state() of {self._name} returned an array that it had returned before, but each of the episodes "
                "that are played at the same time has its own. Return a new one every time."
            )
        return state


def own_lines(size: int) -> Array:
    """Return zeros (size,) with 64 bytes on both sides, so that no cache line of theirs is another thread's too."""
    return np.zeros(size + 16)[8:-8]
