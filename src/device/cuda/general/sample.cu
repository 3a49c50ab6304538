// A token for every output that wants one, one block each. The same order of steps as the CPU's sampler:
// penalties, mask, top-k, typical, top-p, min-p, temperature, draw; the draw depends on seed and position
// only. Without a top-k, or with a larger one, the kMaxCandidates most likely tokens stand for all: their
// mass is measured against the whole vocabulary's for top-p, tokens beyond them are never drawn.
#include <cfloat>
#include <climits>

#include "device/cuda/general/args.h"
#include "device/sample_rules.h"

using namespace steelyard::cuda;

namespace {

constexpr std::uint32_t kThreads = kSampleThreads;
constexpr std::int32_t kNoNumber = -2;  // as in device/step.h

struct Candidate {
  float logit;
  std::int32_t token;
};

struct Shared {
  Candidate c[kMaxCandidates];
  double mass[kMaxCandidates];
  double total;
  unsigned histogram[256];
  unsigned n, digit, above;
  std::uint64_t key;
};

// Larger is better; ties go to the smaller token. Unique per token.
__device__ std::uint64_t key_of(float logit, std::uint32_t token) {
  const unsigned bits = __float_as_uint(logit);
  const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<std::uint64_t>(ordered) << 32 | (0xffffffffu - token);
}

__device__ bool can_be_drawn(float logit) { return logit > -FLT_MAX; }  // neither -inf nor NaN

__device__ bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

__device__ void apply_penalties(const SampleArg& s, const DeviceOutput& o, std::uint32_t slot, float* logits,
                                std::uint32_t* counts) {
  if (o.repeat_penalty == 1.0f && o.presence_penalty == 0.0f && o.frequency_penalty == 0.0f) return;
  const std::int32_t end = static_cast<std::int32_t>(o.position) + 1;
  const std::int32_t first = o.repeat_last_n < 0 ? 0 : max(0, end - o.repeat_last_n);
  const std::int32_t* history = s.history + static_cast<std::uint64_t>(slot) * s.context;
  const auto token_at = [&](std::int32_t i) { return static_cast<std::uint32_t>(history[i]); };
  for (std::int32_t i = first + threadIdx.x; i < end; i += kThreads)
    if (token_at(i) < s.vocab) atomicAdd(&counts[token_at(i)], 1u);
  __syncthreads();
  for (std::int32_t i = first + threadIdx.x; i < end; i += kThreads) {
    if (token_at(i) >= s.vocab) continue;
    const unsigned count = atomicExch(&counts[token_at(i)], 0u);
    if (count == 0) continue;  // another position of the same token did it
    float& x = logits[token_at(i)];
    x = x > 0 ? x / o.repeat_penalty : x * o.repeat_penalty;
    x -= o.presence_penalty + o.frequency_penalty * static_cast<float>(count);
  }
  __syncthreads();
}

__device__ void apply_mask(const std::uint32_t* mask, float* logits, std::uint32_t vocab) {
  for (std::uint32_t i = threadIdx.x; i < vocab; i += kThreads)
    if (!(mask[i / 32] >> i % 32 & 1)) logits[i] = -INFINITY;
  __syncthreads();
}

__device__ std::uint64_t block_max(std::uint64_t value, Shared& sh) {
  std::uint64_t* partial = reinterpret_cast<std::uint64_t*>(sh.mass);
  for (int i = 16; i > 0; i /= 2) value = max(value, __shfl_xor_sync(~0u, value, i));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = partial[threadIdx.x % 32];
  for (int i = 16; i > 0; i /= 2) value = max(value, __shfl_xor_sync(~0u, value, i));
  __syncthreads();
  return value;
}

// kNoNumber where a logit is NaN or +infinity.
__device__ std::int32_t greedy(const float* logits, std::uint32_t vocab, Shared& sh) {
  std::uint64_t best = 0;
  bool wrong = false;
  for (std::uint32_t i = threadIdx.x; i < vocab; i += kThreads) {
    wrong = wrong || !(logits[i] < INFINITY);
    best = max(best, key_of(logits[i], i));
  }
  if (__syncthreads_or(wrong)) return kNoNumber;
  best = block_max(best, sh);
  return static_cast<std::int32_t>(0xffffffffu - static_cast<unsigned>(best));
}

// The key of the k-th best token, or 0 when fewer can be drawn; radix selection from the top byte.
__device__ std::uint64_t kth_key(const float* logits, std::uint32_t vocab, unsigned k, Shared& sh) {
  std::uint64_t prefix = 0;
  unsigned wanted = k;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (unsigned i = threadIdx.x; i < 256; i += kThreads) sh.histogram[i] = 0;
    __syncthreads();
    for (std::uint32_t i = threadIdx.x; i < vocab; i += kThreads) {
      const std::uint64_t key = key_of(logits[i], i);
      if (can_be_drawn(logits[i]) && (shift == 56 || key >> (shift + 8) == prefix))
        atomicAdd(&sh.histogram[key >> shift & 255], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned above = 0;
      int digit = 255;
      while (digit >= 0 && above + sh.histogram[digit] < wanted) above += sh.histogram[digit--];
      sh.digit = digit < 0 ? 256 : digit;
      sh.above = above;
    }
    __syncthreads();
    if (sh.digit == 256) return 0;
    wanted -= sh.above;
    prefix = prefix << 8 | sh.digit;
    const unsigned bucket = sh.histogram[sh.digit];
    __syncthreads();
    if (bucket == wanted) return prefix << shift;  // the whole bucket belongs to the k best
  }
  return prefix;
}

template <typename Before>
__device__ void sort_candidates(Shared& sh, unsigned n, Before before) {
  unsigned size = 1;
  while (size < n) size *= 2;
  for (unsigned i = n + threadIdx.x; i < size; i += kThreads) sh.c[i] = {-INFINITY, INT_MAX};
  __syncthreads();
  for (unsigned width = 2; width <= size; width *= 2)
    for (unsigned step = width / 2; step > 0; step /= 2) {
      for (unsigned i = threadIdx.x; i < size; i += kThreads) {
        const unsigned j = i ^ step;
        if (j > i && before(sh.c[j], sh.c[i]) == ((i & width) == 0)) {
          const Candidate t = sh.c[i];
          sh.c[i] = sh.c[j];
          sh.c[j] = t;
        }
      }
      __syncthreads();
    }
}

// The k best into sh.c, sorted; returns how many, none where a logit is NaN or +infinity.
__device__ unsigned take_best(const float* logits, std::uint32_t vocab, unsigned k, Shared& sh) {
  const std::uint64_t least = kth_key(logits, vocab, k, sh);
  if (threadIdx.x == 0) sh.n = 0;
  __syncthreads();
  bool wrong = false;
  for (std::uint32_t i = threadIdx.x; i < vocab; i += kThreads) {
    wrong = wrong || !(logits[i] < INFINITY);
    if (can_be_drawn(logits[i]) && key_of(logits[i], i) >= least) {
      const unsigned at = atomicAdd(&sh.n, 1u);
      if (at < kMaxCandidates) sh.c[at] = {logits[i], static_cast<std::int32_t>(i)};
    }
  }
  if (__syncthreads_or(wrong)) return 0;
  const unsigned n = min(sh.n, kMaxCandidates);
  sort_candidates(sh, n, better);
  return n;
}

// exp((logit - top) / temperature) of each candidate into sh.mass.
__device__ void masses(Shared& sh, unsigned n, double temperature) {
  __syncthreads();
  const double top = sh.c[0].logit;
  for (unsigned i = threadIdx.x; i < n; i += kThreads) sh.mass[i] = exp((sh.c[i].logit - top) / temperature);
  __syncthreads();
}

// Sum over the whole vocabulary, in an order fixed by the vocabulary's size.
__device__ double whole_mass(const float* logits, std::uint32_t vocab, Shared& sh) {
  __syncthreads();
  const double top = sh.c[0].logit;
  double sum = 0;
  for (std::uint32_t i = threadIdx.x; i < vocab; i += kThreads)
    if (can_be_drawn(logits[i])) sum += exp(logits[i] - top);
  for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
  __syncthreads();
  if (threadIdx.x % 32 == 0) sh.mass[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
  for (unsigned i = 0; i < kThreads / 32; ++i) sum += sh.mass[i];
  __syncthreads();
  return sum;
}

__device__ unsigned typical(Shared& sh, unsigned n, float p) {
  if (p >= 1.0f || n < 2) return n;
  masses(sh, n, 1.0);
  __shared__ double log_sum, entropy;
  const double top = sh.c[0].logit;
  if (threadIdx.x == 0) {
    double sum = 0, e = 0;
    for (unsigned i = 0; i < n; ++i) sum += sh.mass[i];
    log_sum = log(sum);
    for (unsigned i = 0; i < n; ++i) {
      const double lp = sh.c[i].logit - top - log_sum;
      e -= exp(lp) * lp;
    }
    entropy = e;
  }
  __syncthreads();
  const double ls = log_sum, e = entropy;
  sort_candidates(sh, n, [=](const Candidate& a, const Candidate& b) {
    const double da = fabs(-(a.logit - top - ls) - e), db = fabs(-(b.logit - top - ls) - e);
    return da != db ? da < db : better(a, b);
  });
  if (threadIdx.x == 0) {
    double mass = 0;
    unsigned kept = 0;
    while (kept < n && (kept == 0 || mass < p)) mass += exp(sh.c[kept++].logit - top - ls);
    sh.n = kept;
  }
  __syncthreads();
  n = sh.n;
  sort_candidates(sh, n, better);
  return n;
}

// total < 0: the candidates' own mass.
__device__ unsigned top_p(Shared& sh, unsigned n, float p, double total) {
  if (p >= 1.0f || n < 2) return n;
  masses(sh, n, 1.0);
  if (threadIdx.x == 0) {
    if (total < 0) {
      total = 0;
      for (unsigned i = 0; i < n; ++i) total += sh.mass[i];
    }
    const double wanted = p * total;
    double mass = 0;
    unsigned kept = 0;
    while (kept < n && (kept == 0 || mass < wanted)) mass += sh.mass[kept++];
    sh.n = kept;
  }
  __syncthreads();
  return sh.n;
}

__device__ std::int32_t draw(Shared& sh, unsigned n, const DeviceOutput& o) {
  masses(sh, n, o.temperature);
  if (threadIdx.x == 0) {
    double least = 0;
    if (o.min_p > 0) least = sh.c[0].logit + log(fmin(1.0, static_cast<double>(o.min_p)));
    unsigned kept = o.min_p > 0 ? 1 : n;
    while (kept < n && sh.c[kept].logit >= least) ++kept;
    double total = 0;
    for (unsigned i = 0; i < kept; ++i) total += sh.mass[i];
    const std::uint64_t seed = static_cast<std::uint64_t>(o.seed_high) << 32 | o.seed_low;
    const double wanted = steelyard::uniform(seed, static_cast<std::int32_t>(o.position) + 1) * total;
    double mass = 0;
    unsigned i = 0;
    while (i + 1 < kept && (mass += sh.mass[i]) <= wanted) ++i;
    sh.n = sh.c[i].token;
  }
  __syncthreads();
  return static_cast<std::int32_t>(sh.n);
}

__device__ std::int32_t choose(const SampleArg& s, const DeviceOutput& o, float* logits, Shared& sh) {
  if (o.temperature <= 0.0f || o.top_k == 1) return greedy(logits, s.vocab, sh);
  const unsigned k = o.top_k > 0 ? min(static_cast<unsigned>(o.top_k), s.vocab) : s.vocab;
  unsigned n = take_best(logits, s.vocab, min(k, kMaxCandidates), sh);
  if (n == 0) return greedy(logits, s.vocab, sh);
  const bool cut = k > kMaxCandidates && n == kMaxCandidates;
  const double total = cut && o.top_p < 1.0f && o.typical_p >= 1.0f ? whole_mass(logits, s.vocab, sh) : -1.0;
  n = typical(sh, n, o.typical_p);
  n = top_p(sh, n, o.top_p, total);
  return draw(sh, n, o);
}

// Of its sequence's: other blocks may be drawing for rows before it.
__device__ bool is_last_sample(const StepView& step, std::uint32_t output) {
  const std::uint32_t sequence = step.outputs[output].sequence;
  for (std::uint32_t i = output + 1; i < step.header->n_outputs && step.outputs[i].sequence == sequence; ++i)
    if (step.outputs[i].want & 1) return false;
  return true;
}

}  // namespace

// grid: outputs.
extern "C" __global__ void __launch_bounds__(kThreads) general_sample(StepView step, SampleArg s) {
  __shared__ Shared sh;
  if (blockIdx.x >= step.header->n_outputs) return;
  const DeviceOutput o = step.outputs[blockIdx.x];
  if (!(o.want & kWantSample)) {
    if (threadIdx.x == 0) s.sampled[blockIdx.x] = -1;
    return;
  }
  const std::uint32_t slot = step.sequences[o.sequence].slot;
  const std::uint64_t at = static_cast<std::uint64_t>(blockIdx.x) * s.vocab;
  apply_penalties(s, o, slot, s.logits + at, s.counts + at);
  if (o.mask >= 0)
    apply_mask(step.masks + static_cast<std::uint64_t>(o.mask) * ((s.vocab + 31) / 32), s.logits + at,
               s.vocab);
  const std::int32_t token = choose(s, o, s.logits + at, sh);
  if (threadIdx.x == 0) {
    s.sampled[blockIdx.x] = token;
    // The next step may be in flight already: its row for this slot counts for nothing, but must be able to
    // run.
    if (is_last_sample(step, blockIdx.x)) s.last_sample[slot] = token == kNoNumber ? 0 : token;
  }
}
