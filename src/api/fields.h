// A request's JSON and its fields, whatever the dialect: bytes in, values or an error that names the field
// out.
#pragma once

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace steelyard::api {

using Json = nlohmann::ordered_json;

// Within the limits of json_limits.h. Throws Error(bad_input) in one sentence; what it returns is an object.
Json parse_object(std::string_view body);

// As text; what is no UTF-8 is replaced.
std::string dump(const Json& json);

// Field access that names the field; null counts as absent.
class Fields {
 public:
  explicit Fields(const Json& object, std::string prefix = "")
      : object_(object), prefix_(std::move(prefix)) {}

  const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  [[noreturn]] void wrong(const char* key, std::string_view wanted) const {
    throw_error(ErrorKind::bad_input, "\"{}{}\" must be {}", prefix_, key, wanted);
  }
  [[noreturn]] void refuse(const char* key, std::string_view why) const {
    throw_error(ErrorKind::unsupported, "\"{}{}\" {}", prefix_, key, why);
  }

  std::optional<std::string> text(const char* key) const {
    const Json* v = find(key);
    if (!v) return std::nullopt;
    if (!v->is_string()) wrong(key, "a string");
    return v->get<std::string>();
  }
  std::optional<bool> flag(const char* key) const {
    const Json* v = find(key);
    if (!v) return std::nullopt;
    if (!v->is_boolean()) wrong(key, "true or false");
    return v->get<bool>();
  }
  std::optional<double> number(const char* key, double low, double high) const {
    const Json* v = find(key);
    if (!v) return std::nullopt;
    if (!v->is_number()) wrong(key, "a number");
    const double x = v->get<double>();
    if (!(x >= low && x <= high)) wrong(key, fmt::format("a number from {} to {}", low, high));
    return x;
  }
  // Whole numbers; 4096.0 counts, as some clients write them so.
  std::optional<std::int64_t> integer(const char* key, std::int64_t low, std::int64_t high) const {
    const Json* v = find(key);
    if (v && v->is_number_integer() && !(v->is_number_unsigned() && v->get<std::uint64_t>() >> 63)) {
      const auto exact = v->get<std::int64_t>();  // a double may not hold it
      if (exact >= low && exact <= high) return exact;
    }
    const auto x = number(key, static_cast<double>(low), static_cast<double>(high));
    if (!x) return std::nullopt;
    if (*x != std::floor(*x) || std::abs(*x) >= 0x1p63) wrong(key, "a whole number");
    return static_cast<std::int64_t>(*x);
  }
  std::vector<std::string> texts(const char* key) const {
    const Json* v = find(key);
    if (!v) return {};
    if (v->is_string()) return {v->get<std::string>()};
    if (!v->is_array()) wrong(key, "a string or a list of strings");
    std::vector<std::string> out;
    for (const auto& item : *v) {
      if (!item.is_string()) wrong(key, "a string or a list of strings");
      out.push_back(item.get<std::string>());
    }
    return out;
  }

 private:
  const Json& object_;
  std::string prefix_;
};

}  // namespace steelyard::api
