#include <algorithm>
#include <ctime>

#include "app/common.h"
#include "app/output.h"
#include "base/error.h"
#include "device/cpu/probe.h"

namespace strata {
namespace {

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

// The limit of a type is what the processor can do with its kind of numbers in registers: bytes for quantised
// weights, floats for the others. A kernel that was measured to be faster still (BF16 has an instruction of
// its own) raises it.
Ceilings measure(const DeviceInfo& device, std::uint32_t threads) {
  const cpu::Isa isa = cpu::choose_isa();
  Ceilings c{.cpu = device.name, .threads = threads, .measured_at = now_text()};
  c.read_bytes_per_second = cpu::measure_read_bandwidth(isa, threads);
  const double dots = cpu::measure_dot_rate(isa, threads);
  const double fmas = cpu::measure_fma_rate(isa, threads);
  for (const DType type :
       {DType::F32, DType::F16, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0, DType::Q2_K,
        DType::Q3_K, DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::IQ4_NL, DType::IQ4_XS, DType::MXFP4})
    c.multiply_per_second[type] = dtype_info(type).block > 1 ? std::max(dots, fmas) : fmas;
  c.multiply_per_second[DType::BF16] = std::max(fmas, cpu::measure_multiply_rate(isa, DType::BF16, threads));
  return c;
}

}  // namespace

Ceilings machine_ceilings(std::uint32_t threads, bool again) {
  const auto device = make_cpu_device({.threads = threads});
  threads = device->info().threads;
  const auto path = ceilings_path(device->info().name, threads);
  if (!again) {
    try {
      if (auto kept = load_ceilings(path)) return *kept;
    } catch (const Error& e) {
      note("note: {}; measuring again", e.what());
    }
  }
  note("measuring this machine's limits with {} thread{} …", threads, threads == 1 ? "" : "s");
  const Ceilings measured = measure(device->info(), threads);
  try {
    save_ceilings(measured, path);
  } catch (const Error& e) {
    note("note: the measured limits can't be kept: {}", e.what());
  }
  return measured;
}

}  // namespace strata
