// Time of a step on a GPU, without a file: random weights of real models' shapes and the Q4_K_M mixture,
// through the same device contract as the engine. Prints device time, tokens/s and the share of the limit
// (weights read once at the read rate given).
//
//   step_bench SHAPE [READ_TB_PER_S]                 everything; SHAPE: 8b, 1b, 32b
//   step_bench SHAPE READ_TB_PER_S op                ... and the time of each kind of op
//   step_bench SHAPE READ_TB_PER_S 16x1@512 [op]     only steps: 16 streams, one token each, at depth 512
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>

#include "base/error.h"
#include "device/device.h"
#include "program/testing.h"

using namespace steelyard;

namespace {

struct Shape {
  const char* name;
  std::uint32_t width, ff, layers, heads, kv_heads, head_dim, vocab;
  bool bias;
};
constexpr Shape kShapes[] = {{"8b", 4096, 14336, 32, 32, 8, 128, 128256, false},
                             {"1b", 2048, 8192, 16, 32, 8, 64, 128256, false},
                             {"32b", 5120, 27648, 64, 40, 8, 128, 152064, true}};

// The Q4_K_M mixture: Q6_K for the head, and in some layers for v and down.
DType mixture(const WeightSpec& w, std::uint32_t layers) {
  if (w.is_vector()) return DType::F32;
  if (w.role == WeightRole::head) return DType::Q6_K;
  const auto i = static_cast<std::uint32_t>(w.layer), n = layers;
  const bool more = i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
  const bool high = w.role == WeightRole::down || w.name.starts_with("v.");
  return w.layer >= 0 && high && more ? DType::Q6_K : DType::Q4_K;
}

Program program_of(const Shape& s) {
  Program p = testing::tiny_program({.width = s.width,
                                     .n_heads = s.heads,
                                     .n_kv_heads = s.kv_heads,
                                     .head_dim = s.head_dim,
                                     .n_ff = s.ff,
                                     .vocab = s.vocab,
                                     .layers = s.layers,
                                     .n_rot = s.head_dim,
                                     .pairs = RopeSpec::Pairs::adjacent,
                                     .qkv_bias = s.bias},
                                    DType::Q4_K, DType::F16);
  for (WeightSpec& w : p.weights) w.type = mixture(w, s.layers);
  return p;
}

// Random bytes with small scales where the type has them.
std::vector<std::byte> random_blocks(DType type, std::uint64_t bytes) {
  std::vector<std::byte> data(bytes);
  std::mt19937_64 random(9);
  for (std::uint64_t i = 0; i + 8 <= bytes; i += 8) {
    const std::uint64_t r = random();
    std::memcpy(&data[i], &r, 8);
  }
  const std::uint64_t block = dtype_info(type).block_bytes;
  const std::uint16_t d = 0x0a00, m = 0x1000;  // about 1.8e-4 and 5e-4
  for (std::uint64_t b = 0; b + block <= bytes; b += block) {
    if (type == DType::Q6_K) std::memcpy(&data[b + 208], &d, 2);
    if (type == DType::Q4_K) std::memcpy(&data[b], &d, 2), std::memcpy(&data[b + 2], &m, 2);
    if (type == DType::F32) {
      const float one = 1.0f;
      std::memcpy(&data[b], &one, 4);
    }
  }
  return data;
}

struct Model {
  Program program;
  StepLimits limits;
  std::unique_ptr<Device> device;
  std::unique_ptr<Arena> weights, states, workspace;
  std::unique_ptr<Executable> executable;
  std::uint64_t weight_bytes = 0;
  std::uint32_t pages_per_sequence;

  Model(const Shape& s, const StepLimits& l)
      : program(program_of(s)), limits(l), device(make_cuda_device(0)) {
    const Target& t = device->target();
    pages_per_sequence = (limits.context + t.page_tokens() - 1) / t.page_tokens();
    std::map<DType, std::vector<std::byte>> raw;
    for (const auto& w : program.weights) {
      auto& r = raw[w.type];
      if (r.size() < w.file_bytes()) r = random_blocks(w.type, w.file_bytes());
      if (w.role != WeightRole::embedding) weight_bytes += w.file_bytes();
    }
    std::vector<WeightLoad> loads;
    std::uint64_t offset = 0;
    for (const auto& w : program.weights) {
      loads.push_back({&w, std::span(raw[w.type]).first(w.file_bytes()), offset});
      offset += t.weight_layout(w, Mode::fast).bytes;
    }
    weights = device->make_arena("weights", offset);
    const auto start = std::chrono::steady_clock::now();
    device->load_weights(loads, Mode::fast, *weights, {});
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("%s: weights %.2f GB, loaded in %.2f s = %.1f GB/s\n", s.name, offset / 1e9, seconds,
                offset / 1e9 / seconds);
    Bindings b;
    for (const auto& l : loads) b.weights.push_back(weights->data() + l.offset);
    const std::uint32_t pages = pages_per_sequence * limits.slots;
    std::uint64_t state_bytes = 0;
    for (const auto& st : program.states) state_bytes += t.state_page_bytes(st) * pages;
    states = device->make_arena("states", state_bytes);
    state_bytes = 0;
    for (const auto& st : program.states) {
      b.states.push_back(states->data() + state_bytes);
      state_bytes += t.state_page_bytes(st) * pages;
    }
    b.pages = {pages};
    b.workspace_bytes = t.workspace_bytes(program, limits, Mode::fast, 0);
    workspace = device->make_arena("workspace", b.workspace_bytes);
    b.workspace = workspace->data();
    executable = device->compile(program, b, limits, Mode::fast);
  }

  std::uint64_t number = 0;  // of the next step

  // Device milliseconds of a step: `streams` sequences of `n` new tokens after `depth` others.
  double step(std::uint32_t streams, std::uint32_t n, std::uint32_t depth) {
    std::vector<std::int32_t> tokens, positions, tables;
    std::vector<std::uint32_t> row_sequence;
    std::vector<StepSequence> sequences;
    std::vector<StepOutput> outputs;
    SamplingParams greedy;
    greedy.temperature = 0;
    for (std::uint32_t s = 0; s < streams; ++s) {
      sequences.push_back({s, s * n, n, static_cast<std::int32_t>(depth)});
      for (std::uint32_t i = 0; i < n; ++i) {
        tokens.push_back(static_cast<std::int32_t>((i * 7919 + s * 31) % program.vocab_size));
        positions.push_back(static_cast<std::int32_t>(depth + i));
        row_sequence.push_back(s);
      }
      outputs.push_back({s * n + n - 1, s, Want::sample, greedy, nullptr});
      for (std::uint32_t p = 0; p < pages_per_sequence; ++p)
        tables.push_back(static_cast<std::int32_t>(s * pages_per_sequence + p));
    }
    executable->launch(
        {tokens, positions, row_sequence, sequences, outputs, tables, pages_per_sequence, number++});
    return executable->wait().nanoseconds / 1e6;
  }
  double median(std::uint32_t streams, std::uint32_t n, std::uint32_t depth, int repeat) {
    std::vector<double> ms;
    step(streams, n, depth);
    for (int i = 0; i < repeat; ++i) ms.push_back(step(streams, n, depth));
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2];
  }
};

void trace(Model& m, std::uint32_t streams, std::uint32_t n, std::uint32_t depth) {
  m.executable->set_tracing(true);
  m.step(streams, n, depth);
  m.step(streams, n, depth);
  std::printf("  by op, %u streams of %u tokens:\n", streams, n);
  std::map<std::string, double> by_op;
  for (const auto& t : m.executable->trace()) by_op[op_name(m.program.ops[t.op])] += t.nanoseconds / 1e3;
  for (const auto& [name, us] : by_op)
    std::printf("    %-24s %.1f us a step (events between ops included)\n", name.c_str(), us);
  m.executable->set_tracing(false);
}

void decode(Model& m, const Shape& shape, double read, std::uint32_t streams, std::uint32_t depth) {
  const double ms = m.median(streams, 1, depth, 11), limit = read * 1e12 / m.weight_bytes;
  std::printf(
      "  %s decode %2u streams at %4u: %7.3f ms a step, %8.1f tok/s, %5.1f %% of the weights' limit\n",
      shape.name, streams, depth, ms, streams * 1e3 / ms, 100e3 / ms / limit);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string name = argc > 1 ? argv[1] : "8b";
  const double read = argc > 2 ? std::atof(argv[2]) : 4.64;
  const auto* shape =
      std::find_if(std::begin(kShapes), std::end(kShapes), [&](const Shape& s) { return name == s.name; });
  if (shape == std::end(kShapes)) return std::fprintf(stderr, "shapes: 8b, 1b, 32b\n"), 2;
  const std::string what = argc > 3 ? argv[3] : "";
  if (unsigned streams, tokens, depth;
      std::sscanf(what.c_str(), "%ux%u@%u", &streams, &tokens, &depth) == 3) {
    Model m(*shape,
            {.rows = streams * tokens, .outputs = streams, .slots = streams, .context = depth + tokens});
    const double ms = m.median(streams, tokens, depth, 3);
    std::printf("  %s: %.3f ms a step, %.1f tok/s\n", what.c_str(), ms, streams * tokens * 1e3 / ms);
    if (argc > 4 && std::string(argv[4]) == "op") trace(m, streams, tokens, depth);
    return 0;
  }
  const bool by_op = what == "op";
  {  // streams share the memory that one long context takes
    Model m(*shape, {.rows = 2048, .outputs = 64, .slots = 64, .context = 640});
    for (std::uint32_t s = 2; s <= 64; s *= 2) decode(m, *shape, read, s, 512);
    if (by_op) trace(m, 16, 1, 0);
  }
  Model m(*shape, {.rows = 2048, .outputs = 1, .slots = 1, .context = 8320});
  decode(m, *shape, read, 1, 128);
  decode(m, *shape, read, 1, 4096);
  for (const std::uint32_t n : {512u, 2048u, 8192u}) {
    double ms = 0;
    for (std::uint32_t at = 0; at < n; at += 2048) ms += m.median(1, std::min(n, 2048u), at, 3);
    std::printf("  %s prefill %u: %.2f ms, %.0f tok/s\n", shape->name, n, ms, n * 1e3 / ms);
    std::fflush(stdout);
  }
  if (by_op) trace(m, 1, 1, 0), trace(m, 1, 2048, 0);
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
