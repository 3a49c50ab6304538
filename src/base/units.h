// Counts, sizes, rates and times as people read and write them, the same everywhere. Pure functions.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace steelyard {

enum class Rounding : std::uint8_t { nearest, up, down };

// "9999 B", "12.3 KiB", "94.1 MiB", "1.85 GiB": bytes in powers of 1024. What is needed is rounded up and
// what there is down, so that a difference never disappears between the two.
std::string size_text(std::uint64_t bytes, Rounding rounding = Rounding::nearest);

// "12G", "900M", "24GiB": powers of 1024; "22GB": powers of 1000, as its name says; "4096B": bytes. Throws
// Error(bad_input) for anything else, a number without a unit too, with the way to write it.
std::uint64_t parse_size(std::string_view text);

// "999", "7K", "135M", "8.03B", "1.2T": three digits at most, powers of 1000.
std::string count_text(std::uint64_t count);

// "2026-03-01T12:00:00.25Z": RFC 3339 in UTC, with as many digits of the second as there are.
std::string rfc3339(std::chrono::system_clock::time_point time);
// The same back; nullopt when it isn't such a text.
std::optional<std::chrono::system_clock::time_point> parse_rfc3339(const std::string& text);

// How long ago or how long: "12 s", "5 min", "3 h", "41 days".
std::string span_text(std::chrono::seconds span);

}  // namespace steelyard
