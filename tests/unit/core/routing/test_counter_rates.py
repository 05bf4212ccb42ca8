"""What counters of bytes say of the time since they were read before."""

from __future__ import annotations

from re6st.core.routing.counter_rates import CounterRates


def test_rates_are_of_the_time_between_two_readings() -> None:
    rates = CounterRates()
    assert rates.read({"a": 10**6}, 10.0) is None
    assert rates.read({"a": 2 * 10**6, "new": 10**6}, 12.0) == {"a": 4.0, "new": 4.0}
    assert rates.read({"a": 3 * 10**6}, 12.0) is None, "no time has passed"
    assert rates.read({"a": 0}, 13.0) == {"a": 0.0}, "somebody has set it back"


def test_new_counters_count_from_zero_and_what_is_forgotten_says_nothing() -> None:
    rates = CounterRates()
    rates.begin(10.0)
    assert rates.read({"a": 10**6}, 11.0) == {"a": 8.0}
    rates.forget()
    assert rates.read({"a": 10**6}, 12.0) is None
