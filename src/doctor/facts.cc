#include "doctor/facts.h"

#include <algorithm>

namespace steelyard::doctor {
namespace {

// Of a GPU's memory, what the driver, workspaces and the desktop keep from weights and KV state.
constexpr double kUsable = 0.92;

struct Reader {
  double rate = 0, room = 0;
};

// The least time in which all read `bytes` together, each no more than its room; 0 when they have none.
double together(const std::vector<Reader>& readers, double bytes) {
  double most = 0, room = 0;
  for (const Reader& r : readers) {
    room += r.room;
    if (r.rate > 0) most = std::max(most, r.room / r.rate);
  }
  if (room < bytes) return 0;
  double low = 0, high = most;
  for (int i = 0; i < 60; ++i) {  // what is read in a time only grows with it
    const double middle = (low + high) / 2;
    double read = 0;
    for (const Reader& r : readers) read += std::min(r.room, r.rate * middle);
    (read < bytes ? low : high) = middle;
  }
  return high;
}

}  // namespace

const char* engine_name(Engine engine) {
  switch (engine) {
    case Engine::steelyard:
      return "Steelyard";
    case Engine::ollama:
      return "Ollama";
    case Engine::llama_cpp:
      return "llama.cpp";
  }
  return "?";
}

const char* part_name(Part part) {
  switch (part) {
    case Part::weights:
      return "weights";
    case Part::kv:
      return "KV state";
    case Part::links:
      return "links";
    case Part::waits:
      return "launches and waits";
    case Part::other:
      return "other operations";
    case Part::sampling:
      return "sampling";
  }
  return "?";
}

double DeviceFacts::seconds() const {
  double sum = 0;
  for (const StepLine& line : step) sum += line.seconds;
  return sum;
}

double DeviceFacts::busy() const {
  double sum = 0;
  for (const StepLine& line : step)
    if (line.part != Part::waits) sum += line.seconds;
  return sum;
}

const DeviceFacts* Facts::host_device() const {
  const auto found = std::ranges::find(devices, false, &DeviceFacts::gpu);
  return found == devices.end() ? nullptr : &*found;
}

std::vector<const DeviceFacts*> Facts::gpus() const {
  std::vector<const DeviceFacts*> list;
  for (const DeviceFacts& d : devices)
    if (d.gpu) list.push_back(&d);
  return list;
}

double Facts::share(Part part) const {
  double token = 0, all = 0, of = 0, busy = 0;
  for (const DeviceFacts& d : devices) {
    token = std::max(token, d.seconds());
    all += d.seconds();
    busy += d.busy();
    for (const StepLine& line : d.step)
      if (line.part == part) of += line.seconds;
  }
  if (token <= 0) return 0;
  if (split == Split::ranks) return of / all;
  return part == Part::waits ? std::max(0.0, token - busy) / token : of / token;
}

double limit_seconds(const Facts& facts) {
  double bytes = 0;
  for (const DeviceFacts& d : facts.devices) bytes += d.reads();
  std::vector<Reader> gpus;
  for (const DeviceFacts* d : facts.gpus()) {
    if (d->read_rate <= 0) return facts.limit_seconds;
    const double room = d->memory ? kUsable * static_cast<double>(d->memory) : d->reads();
    gpus.push_back({d->read_rate, std::max(room, d->reads())});
  }
  if (gpus.empty() || bytes <= 0) return facts.limit_seconds;
  if (gpus.size() == 1 && facts.split == Split::one && facts.limit_seconds > 0) {
    const DeviceFacts* host = facts.host_device();
    if (!host || host->reads() <= 0) return facts.limit_seconds;
  }
  if (const double all = together(gpus, bytes); all > 0) return all;
  const DeviceFacts* host = facts.host_device();
  if (!host || host->read_rate <= 0) return 0;
  gpus.push_back({host->read_rate, bytes});
  return together(gpus, bytes);
}

double limit_in_turn(const Facts& facts) {
  double sum = 0;
  for (const DeviceFacts& d : facts.devices) {
    if (d.reads() <= 0) continue;
    if (d.read_rate <= 0) return 0;
    sum += d.reads() / d.read_rate;
  }
  return sum;
}

}  // namespace steelyard::doctor
