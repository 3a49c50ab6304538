#include "api/json_limits.h"

#include <array>

#include "base/error.h"

namespace steelyard::api {
namespace {

// The index of the quote that ends the string which begins at `at`, or the end.
std::size_t end_of_string(std::string_view json, std::size_t at) {
  while (++at < json.size() && json[at] != '"')
    if (json[at] == '\\') ++at;
  return at;
}

}  // namespace

void check_json_limits(std::string_view json) {
  std::array<std::size_t, kMaxJsonDepth + 1> keys{};  // of the open objects and lists
  std::size_t depth = 0, values = 1;
  const auto count_value = [&] {
    if (++values > kMaxJsonValues)
      throw_error(ErrorKind::bad_input, "the JSON has more than {} values", kMaxJsonValues);
  };
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (c == '"') {
      i = end_of_string(json, i);
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth)
        throw_error(ErrorKind::bad_input, "the JSON is nested deeper than {} levels", kMaxJsonDepth);
      keys[depth] = 0;
      count_value();
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    } else if (c == ',') {
      count_value();
    } else if (c == ':') {
      count_value();
      if (++keys[depth] > kMaxJsonKeys)
        throw_error(ErrorKind::bad_input, "the JSON has an object of more than {} keys", kMaxJsonKeys);
    }
  }
}

}  // namespace steelyard::api
