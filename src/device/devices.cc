#include "device/devices.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"
#include "base/units.h"

namespace steelyard {

std::uint64_t HeldMemory::on(const std::string& device) const {
  const std::lock_guard lock(mutex_);
  const auto it = bytes_.find(device);
  return it == bytes_.end() ? 0 : it->second;
}

std::uint64_t HeldMemory::process_bytes(std::uint64_t resident) {
  const std::lock_guard lock(mutex_);
  if (loading_) return process_;
  const auto models = bytes_.find("CPU");
  const std::uint64_t held = models == bytes_.end() ? 0 : models->second;
  return process_ = resident > held ? resident - held : 0;
}

MemoryHold::MemoryHold(std::shared_ptr<HeldMemory> held, std::string device, std::uint64_t bytes)
    : held_(std::move(held)), device_(std::move(device)), bytes_(bytes) {
  const std::lock_guard lock(held_->mutex_);
  held_->bytes_[device_] += bytes_;
  ++held_->loading_;
}

void MemoryHold::settle() {
  const std::lock_guard lock(held_->mutex_);
  if (!std::exchange(settled_, true)) --held_->loading_;
}

MemoryHold::~MemoryHold() {
  if (!held_) return;
  const std::lock_guard lock(held_->mutex_);
  held_->bytes_[device_] -= bytes_;
  if (!settled_) --held_->loading_;
}

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
  if (name.find_first_of(",+") != std::string_view::npos)
    throw_error(ErrorKind::bad_input,
                "'{}' names several devices: lay a model's layers over them with --placement", name);
  throw_error(ErrorKind::bad_input, "'{}' is no device: give auto, cpu or cuda0, cuda1 …", name);
}

namespace {

// Calls item() with each part between commas.
template <typename Fn>
void for_each_item(std::string_view text, Fn item) {
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    item(text.substr(begin, end - begin));
    begin = end + 1;
  }
}

DeviceName parse_one(std::string_view name) {
  const DeviceName device = parse_device(name);
  if (device.kind == DeviceName::Kind::automatic)
    throw_error(ErrorKind::bad_input, "'{}' names no device: give cpu or cuda0, cuda1 …", name);
  return device;
}

}  // namespace

std::vector<DeviceName> parse_devices(std::string_view names) {
  std::vector<DeviceName> devices;
  for_each_item(names, [&](std::string_view name) {
    const DeviceName device = parse_one(name);
    if (std::ranges::find(devices, device) != devices.end())
      throw_error(ErrorKind::bad_input, "{} is named twice", name);
    devices.push_back(device);
  });
  return devices;
}

DeviceBytes parse_device_bytes(std::string_view text) {
  DeviceBytes devices;
  for_each_item(text, [&](std::string_view item) {
    const std::size_t equals = item.find('=');
    if (equals == std::string_view::npos)
      throw_error(ErrorKind::bad_input, "'{}' is no device with its memory: write cuda0=10GiB", item);
    const DeviceName device = parse_one(item.substr(0, equals));
    if (std::ranges::find(devices, device, &DeviceBytes::value_type::first) != devices.end())
      throw_error(ErrorKind::bad_input, "{} is named twice", item.substr(0, equals));
    devices.emplace_back(device, parse_size(item.substr(equals + 1)));
  });
  return devices;
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

std::shared_ptr<Device> Devices::cpu(const CpuOptions& options) {
  CpuOptions wanted = options;
  if (wanted.threads == 0) wanted.threads = ThreadPool::available_cores();
  const std::lock_guard lock(mutex_);
  std::weak_ptr<Device>& open = cpus_[{wanted.threads, wanted.memory_limit}];
  if (auto known = open.lock()) return known;
  std::shared_ptr<Device> device = make_cpu_device(wanted);
  open = device;
  return device;
}

void Devices::lose(const Device& device) {
  const std::lock_guard lock(mutex_);
  lost_.insert(device.info().id);
}

}  // namespace steelyard
