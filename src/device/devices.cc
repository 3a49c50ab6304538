#include "device/devices.h"

#include <charconv>

#include "base/error.h"

namespace steelyard {

DeviceName parse_device(std::string_view name) {
  std::string lower(name);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  if (lower == "auto") return {DeviceName::Kind::automatic};
  if (lower == "cpu") return {DeviceName::Kind::cpu};
  if (lower.starts_with("cuda")) {
    std::uint32_t index = 0;
    const char* begin = lower.data() + 4;
    const char* end = lower.data() + lower.size();
    const auto [rest, error] = std::from_chars(begin, end, index);
    if (begin == end || (error == std::errc() && rest == end)) return {DeviceName::Kind::cuda, index};
  }
  throw_error(ErrorKind::bad_input, "'{}' is no device: give auto, cpu or cuda0, cuda1 …", name);
}

std::shared_ptr<Device> Devices::cuda(std::uint32_t index) {
  const std::lock_guard lock(mutex_);
  auto known = open_[index].lock();
  if (known && known->lost()) lost_.insert(known->info().id);
  if (const auto id = fmt::format("CUDA{}", index); lost_.count(id))
    throw_error(ErrorKind::io, "{} is lost since an earlier error; restart to use it again", id);
  if (known) return known;
  std::shared_ptr<Device> device = make_cuda_device(index);
  open_[index] = device;
  return device;
}

void Devices::lose(const Device& device) {
  const std::lock_guard lock(mutex_);
  lost_.insert(device.info().id);
}

}  // namespace steelyard
