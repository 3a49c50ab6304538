#include "api/left_out.h"

#include <fmt/format.h>

#include <utility>

#include "base/readable.h"

namespace steelyard::api {

std::vector<StoredModel> LeftOut::without(std::vector<StoredModel> models) {
  constexpr std::size_t kLongest = 400;
  std::map<std::filesystem::path, std::string> broken;
  std::vector<std::string> news;
  std::vector<StoredModel> rest;
  const std::lock_guard lock(mutex_);
  for (StoredModel& m : models) {
    if (m.error.empty()) {
      rest.push_back(std::move(m));
      continue;
    }
    std::string state = fmt::format("{} {} {}", m.bytes, m.modified.time_since_epoch().count(), m.error);
    const auto said = said_.find(m.path);
    if (said == said_.end() || said->second != state)
      news.push_back(fmt::format("{} isn't listed: {}", readable(m.name, 100), readable(m.error, kLongest)));
    broken[m.path] = std::move(state);
  }
  said_ = std::move(broken);  // a file that is gone is forgotten
  if (log_)
    for (const std::string& line : news) log_(line);
  return rest;
}

}  // namespace steelyard::api
