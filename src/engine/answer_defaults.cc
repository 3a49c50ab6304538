#include "engine/answer_defaults.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace steelyard {
namespace {

struct FileKey {
  std::string_view key, option;
};
constexpr FileKey kKeys[] = {{"temp", "temperature"},
                             {"top_k", "top_k"},
                             {"top_p", "top_p"},
                             {"min_p", "min_p"},
                             {"penalty_repeat", "repeat_penalty"},
                             {"penalty_last_n", "repeat_last_n"}};

std::optional<double> find_number(const GgufMetadata& metadata, const std::string& key, bool whole) {
  if (!whole) return metadata.find_float(key);
  const auto value = metadata.find_int(key);
  return value ? std::optional<double>(static_cast<double>(*value)) : std::nullopt;
}

}  // namespace

bool file_may_say(std::string_view option) {
  return std::ranges::find(kKeys, option, &FileKey::option) != std::end(kKeys);
}

AnswerOptions file_answer_options(const GgufMetadata& metadata) {
  AnswerOptions options;
  for (const auto& [key, name] : kKeys) {
    const NumberOption& option = *find_number_option(name);
    try {
      const auto value = find_number(metadata, "general.sampling." + std::string(key), option.whole());
      if (value) option.set(options, *value);
    } catch (const Error&) {  // no sensible value: as if it weren't there
    }
  }
  return options;
}

}  // namespace steelyard
