// Measured ceilings of this machine's CPU: what a perfect program could reach. Each call takes some tenths of
// a second and uses the given threads alone; values are per second, of all threads together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "device/cpu/kernels.h"

namespace steelyard::cpu {

// Bytes read from buffers of each of `sizes`, again and again; the spread of the repeats of the largest. A
// buffer that caches don't hold gives the memory's rate.
struct ReadRates {
  std::vector<double> bytes_per_second;
  double spread = 0;  // (slowest - fastest) / fastest
};
ReadRates measure_read_bandwidth(Isa isa, unsigned threads, std::span<const std::uint64_t> sizes);

// Operations (a multiply and an add are two) of byte dot products and of float multiply-adds, in registers.
double measure_dot_rate(Isa isa, unsigned threads);
double measure_fma_rate(Isa isa, unsigned threads);

// Operations of the real product of a weight type with 256 rows of activations, weights and activations
// cached.
double measure_multiply_rate(Isa isa, DType type, unsigned threads);

}  // namespace steelyard::cpu
