#include "device/testing/harness.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "quant/quant.h"

namespace steelyard::testing {

// Routers tell experts apart, as trained ones do: else rounding would choose.
static float spread(WeightRole role) { return role == WeightRole::router ? 4.0f : 1.0f; }

RandomWeights random_weights(const Program& program, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  RandomWeights out;
  for (const auto& w : program.weights) {
    std::vector<float> values(w.elements());
    const float scale = 1.0f / std::sqrt(static_cast<float>(w.cols));
    for (auto& v : values) {
      if (w.role == WeightRole::norm)
        v = 1.0f + 0.2f * normal(random);
      else if (w.role == WeightRole::rope_factors)
        v = 1.0f + std::abs(normal(random));
      else if (w.is_vector())
        v = 0.3f * normal(random);
      else
        v = normal(random) * (w.role == WeightRole::embedding ? 1.0f : spread(w.role) * scale);
    }
    out.raw.emplace_back(w.file_bytes());
    quantize(w.type, values.data(), values.size(), out.raw.back().data());
    dequantize(w.type, out.raw.back().data(), values.size(), values.data());
    out.floats.push_back(std::move(values));
  }
  return out;
}

Harness::Harness(Device& device, const Program& program, const RandomWeights& weights,
                 const StepLimits& limits, Mode mode, std::uint64_t page_seed)
    : program_(program), limits_(limits) {
  const Target& target = device.target();
  table_length_ = most_pages(limits, target.page_tokens());
  Bindings bindings;
  std::vector<WeightLoad> loads;
  std::uint64_t weight_bytes = 0;
  for (std::size_t i = 0; i < program.weights.size(); ++i) {
    loads.push_back({&program_.weights[i], weights.raw[i], weight_bytes});
    weight_bytes += target.weight_layout(program.weights[i], mode).bytes;
  }
  weights_ = device.make_arena("weights", weight_bytes);
  device.load_weights(loads, mode, *weights_, {});
  for (const WeightLoad& load : loads) bindings.weights.push_back(weights_->data() + load.offset);

  const std::uint32_t pages = table_length_ * limits.slots;
  std::uint64_t state_bytes = 0;
  for (const auto& s : program.states) state_bytes += target.state_page_bytes(s) * pages;
  states_ = device.make_arena("states", state_bytes);
  std::uint64_t offset = 0;
  for (const auto& s : program.states) {
    bindings.states.push_back(states_->data() + offset);
    offset += target.state_page_bytes(s) * pages;
  }
  bindings.pages.assign(program.groups.size(), pages);
  tables_.emplace(std::vector<std::uint32_t>(program.groups.size(), table_length_), limits.slots,
                  table_length_, page_seed);
  lengths_.assign(limits.slots, 0);
  workspace_ = device.make_arena(
      "workspace", target.workspace_bytes(program, limits, mode, std::max(1u, device.info().threads)));
  bindings.workspace = workspace_->data();
  bindings.workspace_bytes = workspace_->bytes();
  executable_ = device.compile(program_, bindings, limits, mode);
}

void Harness::launch(const std::vector<Feed>& feeds, bool logits) {
  // Tests of what is refused name sequences that aren't there; they borrow the last one's pages.
  const auto known = [&](const Feed& feed) { return std::min(feed.sequence, limits_.slots - 1); };
  std::vector<std::int32_t> tokens, positions, tables;
  std::vector<std::uint32_t> row_sequence;
  std::vector<StepSequence> sequences;
  std::vector<StepOutput> outputs;
  for (std::uint32_t f = 0; f < feeds.size(); ++f) {
    const Feed& feed = feeds[f];
    std::int32_t& length = lengths_[known(feed)];
    sequences.push_back({feed.sequence, static_cast<std::uint32_t>(tokens.size()),
                         static_cast<std::uint32_t>(feed.tokens.size()), length});
    for (const std::int32_t token : feed.tokens) {
      if (logits)
        outputs.push_back({static_cast<std::uint32_t>(tokens.size()), f, Want::logits, {}, nullptr});
      tokens.push_back(token);
      positions.push_back(length++);
      row_sequence.push_back(f);
    }
  }
  for (std::size_t g = 0; g < program_.groups.size(); ++g)
    for (const Feed& feed : feeds) {
      const auto table = tables_->of(known(feed))[g];
      tables.insert(tables.end(), table.begin(), table.end());
    }
  executable_->launch(
      {tokens, positions, row_sequence, sequences, outputs, tables, table_length_, step_number_++});
  last_ = &executable_->wait();
}

void Harness::step_unwatched(const std::vector<Feed>& feeds) { launch(feeds, true); }

Harness::Trace Harness::step(const std::vector<Feed>& feeds, bool logits) {
  Trace trace(program_.ops.size());
  executable_->set_probe([&](std::size_t op, BufferId buffer, std::uint32_t, std::span<const float> values) {
    trace.at(op)[buffer].emplace_back(values.begin(), values.end());
  });
  launch(feeds, logits);
  executable_->set_probe({});
  return trace;
}

double relative_error(const std::vector<std::vector<float>>& a, const Matrix& b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].size() != b[i].size()) return INFINITY;
    for (std::size_t c = 0; c < a[i].size(); ++c) {
      difference += (a[i][c] - b[i][c]) * (a[i][c] - b[i][c]);
      norm += b[i][c] * b[i][c];
    }
  }
  const double error = std::sqrt(difference / std::max(norm, 1e-30));
  return std::isfinite(error) ? error : INFINITY;
}

}  // namespace steelyard::testing
