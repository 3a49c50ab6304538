#include "device/testing/reference.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace steelyard::testing {
namespace {

using Row = std::vector<double>;

double silu(double x) { return x / (1 + std::exp(-x)); }
double gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
double clamped_swiglu(double gate, double up) {
  const double g = std::min(gate, 7.0), u = std::clamp(up, -7.0, 7.0);
  return g / (1 + std::exp(-1.702 * g)) * (u + 1);
}
double activated(Activation a, double gate, double up) {
  if (a == Activation::clamped_swiglu) return clamped_swiglu(gate, up);
  return (a == Activation::silu ? silu(gate) : gelu_tanh(gate)) * up;
}
void softmax(Row& x) {
  const double most = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& v : x) sum += v = std::exp(v - most);
  for (double& v : x) v /= sum;
}
double capped(double x, double cap) { return cap > 0 ? cap * std::tanh(x / cap) : x; }

void rms_norm(double* x, std::size_t n, const std::vector<float>& weight, double eps) {
  double square = 0;
  for (std::size_t i = 0; i < n; ++i) square += x[i] * x[i];
  const double inverse = 1 / std::sqrt(square / static_cast<double>(n) + eps);
  for (std::size_t i = 0; i < n; ++i) x[i] *= inverse * weight[i];
}

}  // namespace

struct Reference::Step {
  Reference& r;
  std::uint32_t sequence;
  std::span<const std::int32_t> tokens;
  std::int32_t first_position;
  std::vector<Matrix> buffers;
  std::map<BufferId, Matrix> written;

  const std::vector<float>& w(WeightId id) const { return r.weights_[id]; }
  void write(BufferId id, Matrix m) { written[id] = buffers[id] = std::move(m); }

  Matrix normed(BufferId in, const NormRef& norm) const {
    Matrix m = buffers[in];
    if (norm)
      for (auto& row : m) rms_norm(row.data(), row.size(), w(norm.weight), norm.eps);
    return m;
  }
  Matrix times(WeightId id, WeightId bias, const Matrix& x) const {
    const WeightSpec& spec = r.program_.weights[id];
    Matrix y(x.size(), Row(spec.rows));
    for (std::size_t i = 0; i < x.size(); ++i)
      for (std::uint32_t o = 0; o < spec.rows; ++o) {
        double sum = bias == kNoWeight ? 0 : w(bias)[o];
        for (std::uint32_t c = 0; c < spec.cols; ++c) sum += x[i][c] * w(id)[std::size_t{o} * spec.cols + c];
        y[i][o] = sum;
      }
    return y;
  }

  void operator()(const EmbedOp& op) {
    const std::uint32_t width = r.program_.n_embd;
    Matrix m(tokens.size(), Row(width));
    for (std::size_t i = 0; i < tokens.size(); ++i)
      for (std::uint32_t c = 0; c < width; ++c)
        m[i][c] = double{w(op.table)[std::size_t(tokens[i]) * width + c]} * op.scale;
    write(op.out, std::move(m));
  }
  void operator()(const QkvOp& op) {
    const Matrix x = normed(op.in, op.norm);
    write(op.q_out, times(op.q, op.q_bias, x));
    write(op.k_out, times(op.k, op.k_bias, x));
    write(op.v_out, times(op.v, op.v_bias, x));
  }
  void rotate(double* head, const RopeSpec& rope, std::int32_t position) const {
    const std::uint32_t half = rope.n_rot / 2;
    for (std::uint32_t i = 0; i < half; ++i) {
      const double factor = rope.factors == kNoWeight ? 1.0 : w(rope.factors)[i];
      const double ramp = (i - double{rope.ramp_begin}) / (double{rope.ramp_end} - rope.ramp_begin);
      const double scale = 1 + std::clamp(ramp, 0.0, 1.0) * (double{rope.freq_scale} - 1);
      const double angle = position * scale * std::pow(double{rope.base}, -2.0 * i / rope.n_rot) / factor;
      const bool halves = rope.pairs == RopeSpec::Pairs::halves;
      double& a = head[halves ? i : 2 * i];
      double& b = head[halves ? i + half : 2 * i + 1];
      const double x = a, y = b, c = std::cos(angle) * rope.magnitude, s = std::sin(angle) * rope.magnitude;
      a = x * c - y * s;
      b = x * s + y * c;
    }
  }
  void heads(Matrix& m, std::uint32_t dim, const NormRef& norm, std::int16_t rope) const {
    for (std::size_t i = 0; i < m.size(); ++i)
      for (std::size_t h = 0; h < m[i].size(); h += dim) {
        if (norm) rms_norm(&m[i][h], dim, w(norm.weight), norm.eps);
        if (rope >= 0)
          rotate(&m[i][h], r.program_.ropes[rope], first_position + static_cast<std::int32_t>(i));
      }
  }
  void operator()(const RopeAppendOp& op) {
    const StateSpec& spec = r.program_.states[op.state];
    Matrix q = buffers[op.q], k = buffers[op.k];
    heads(q, spec.head_dim_k, op.q_norm, op.rope);
    heads(k, spec.head_dim_k, op.k_norm, op.rope);
    for (std::size_t i = 0; op.q_growth != 0 && i < q.size(); ++i) {
      const double steps =
          std::floor(static_cast<double>(first_position + static_cast<std::int32_t>(i)) / op.q_growth_from);
      for (double& v : q[i]) v *= 1 + op.q_growth * std::log(1 + steps);
    }
    State& state = r.states_[{sequence, op.state}];
    state.k.resize(first_position);
    state.v.resize(first_position);
    state.k.insert(state.k.end(), k.begin(), k.end());
    state.v.insert(state.v.end(), buffers[op.v].begin(), buffers[op.v].end());
    write(op.q, std::move(q));
    write(op.k, std::move(k));
  }
  void attend(const AttentionOp& op, const StateSpec& spec, const State& state, const double* q,
              std::int32_t position, std::uint32_t head, double* out) const {
    const std::uint32_t kv = head / (op.n_heads / spec.n_kv_heads);
    const std::int32_t first =
        op.window ? std::max(0, position - static_cast<std::int32_t>(op.window) + 1) : 0;
    Row score;
    double most = op.sinks == kNoWeight ? -INFINITY : w(op.sinks)[head];
    for (std::int32_t p = first; p <= position; ++p) {
      double dot = 0;
      for (std::uint32_t d = 0; d < spec.head_dim_k; ++d) dot += q[d] * state.k[p][kv * spec.head_dim_k + d];
      score.push_back(capped(dot * op.scale, op.softcap));
      most = std::max(most, score.back());
    }
    double sum = op.sinks == kNoWeight ? 0 : std::exp(w(op.sinks)[head] - most);
    for (auto& s : score) sum += s = std::exp(s - most);
    for (std::uint32_t d = 0; d < spec.head_dim_v; ++d) {
      double value = 0;
      for (std::size_t i = 0; i < score.size(); ++i)
        value += score[i] * state.v[first + i][kv * spec.head_dim_v + d];
      out[d] = value / sum;
    }
  }
  void operator()(const AttentionOp& op) {
    const StateSpec& spec = r.program_.states[op.state];
    const State& state = r.states_[{sequence, op.state}];
    Matrix out(tokens.size(), Row(std::size_t{op.n_heads} * spec.head_dim_v));
    for (std::size_t i = 0; i < out.size(); ++i)
      for (std::uint32_t h = 0; h < op.n_heads; ++h)
        attend(op, spec, state, &buffers[op.q][i][h * spec.head_dim_k],
               first_position + static_cast<std::int32_t>(i), h, &out[i][h * spec.head_dim_v]);
    write(op.out, std::move(out));
  }
  void operator()(const ResidualLinearOp& op) {
    Matrix y = times(op.weight, op.bias, buffers[op.in]);
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (op.post_norm) rms_norm(y[i].data(), y[i].size(), w(op.post_norm.weight), op.post_norm.eps);
      for (std::size_t c = 0; op.residual != kNoBuffer && c < y[i].size(); ++c)
        y[i][c] += buffers[op.residual][i][c];
    }
    write(op.out, std::move(y));
  }
  void operator()(const GateUpOp& op) {
    const Matrix x = normed(op.in, op.norm);
    Matrix gate = times(op.gate, op.gate_bias, x);
    const Matrix up = times(op.up, op.up_bias, x);
    for (std::size_t i = 0; i < gate.size(); ++i)
      for (std::size_t c = 0; c < gate[i].size(); ++c)
        gate[i][c] = activated(op.activation, gate[i][c], up[i][c]);
    write(op.out, std::move(gate));
  }
  // Experts in the order of their marks, the best first; of equals the first.
  static std::vector<std::uint32_t> best(const Row& marks, std::uint32_t n) {
    std::vector<std::uint32_t> order(marks.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return marks[a] > marks[b]; });
    order.resize(std::min<std::size_t>(n, order.size()));
    return order;
  }
  static void leave_groups(Row& marks, const Routing& r) {
    const std::uint32_t size = r.n_experts / r.n_groups;
    Row sums;
    for (std::uint32_t g = 0; g < r.n_groups; ++g) {
      const Row group(marks.begin() + g * size, marks.begin() + (g + 1) * size);
      double& sum = sums.emplace_back(0);
      for (const std::uint32_t e : best(group, 2)) sum += group[e];
    }
    const auto kept = best(sums, r.n_groups_used);
    for (std::uint32_t e = 0; e < r.n_experts; ++e)
      if (std::find(kept.begin(), kept.end(), e / size) == kept.end()) marks[e] = -INFINITY;
  }
  std::vector<std::pair<std::uint32_t, double>> route(const ExpertsOp& op, Row scores) const {
    const Routing& r = op.routing;
    if (r.scoring == Scoring::softmax) softmax(scores);
    if (r.scoring == Scoring::sigmoid)
      for (double& s : scores) s = 1 / (1 + std::exp(-s));
    Row marks = scores;
    for (std::uint32_t e = 0; op.choice_bias != kNoWeight && e < marks.size(); ++e)
      marks[e] += w(op.choice_bias)[e];
    leave_groups(marks, r);
    const auto chosen = best(marks, r.n_used);
    Row weights;
    for (const std::uint32_t e : chosen) weights.push_back(scores[e]);
    if (r.scoring == Scoring::softmax_of_chosen) softmax(weights);
    double sum = 0;
    for (const double x : weights) sum += x;
    std::vector<std::pair<std::uint32_t, double>> out;
    for (std::size_t i = 0; i < chosen.size(); ++i)
      out.emplace_back(chosen[i], weights[i] / (r.renormalise ? sum : 1) * r.scale);
    return out;
  }
  // Every expert's logit moved by itself, up and down.
  bool undecided(const ExpertsOp& op, const Row& logits) const {
    const auto chosen = [&](const Row& l) {
      std::set<std::uint32_t> experts;
      for (const auto& [e, weight] : route(op, l)) experts.insert(e);
      return experts;
    };
    const auto want = chosen(logits);
    for (std::size_t e = 0; e < logits.size(); ++e)
      for (const double change : {-kChange, kChange}) {
        Row moved = logits;
        moved[e] += change;
        if (chosen(moved) != want) return true;
      }
    return false;
  }
  // One output of an expert.
  double expert_dot(WeightId id, WeightId bias, std::uint32_t expert, std::uint32_t o, const Row& x) const {
    const WeightSpec& spec = r.program_.weights[id];
    const std::size_t row = std::size_t{expert} * (spec.rows / spec.experts) + o;
    double sum = bias == kNoWeight ? 0 : w(bias)[row];
    for (std::uint32_t c = 0; c < spec.cols; ++c) sum += x[c] * w(id)[row * spec.cols + c];
    return sum;
  }
  void operator()(const ExpertsOp& op) {
    const Matrix x = normed(op.in, op.norm), scores = times(op.router, op.router_bias, x);
    Matrix out = buffers[op.residual];
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (undecided(op, scores[i])) r.undecided_[i] = true;
      for (const auto& [e, weight] : route(op, scores[i])) {
        Row inner(r.program_.weights[op.down].cols);
        for (std::uint32_t o = 0; o < inner.size(); ++o)
          inner[o] = activated(op.activation, expert_dot(op.gate, op.gate_bias, e, o, x[i]),
                               expert_dot(op.up, op.up_bias, e, o, x[i]));
        for (std::uint32_t o = 0; o < out[i].size(); ++o)
          out[i][o] += weight * expert_dot(op.down, op.down_bias, e, o, inner);
      }
    }
    write(op.out, std::move(out));
  }
  void operator()(const HeadOp& op) {
    Matrix y = times(op.weight, kNoWeight, normed(op.in, op.norm));
    for (auto& row : y)
      for (auto& x : row) x = capped(x * op.scale, op.softcap);
    write(op.logits, std::move(y));
  }
  void operator()(const SampleOp&) {}
  void operator()(const ReceiveOp&) {}  // parts are compared with the whole
  void operator()(const SendOp&) {}
  void operator()(const SumOp&) {}
  void operator()(const GatherOp&) {}
};

Reference::Reference(const Program& program, std::vector<std::vector<float>> weights)
    : program_(program), weights_(std::move(weights)) {}

std::vector<std::map<BufferId, Matrix>> Reference::feed(std::uint32_t sequence,
                                                        std::span<const std::int32_t> tokens) {
  std::int32_t first = 0;
  for (StateId s = 0; s < static_cast<StateId>(program_.states.size()); ++s)
    first = static_cast<std::int32_t>(states_[{sequence, s}].k.size());
  Step step{*this, sequence, tokens, first, std::vector<Matrix>(program_.buffers.size()), {}};
  std::vector<std::map<BufferId, Matrix>> result;
  undecided_.assign(tokens.size(), false);
  for (const auto& op : program_.ops) {
    step.written.clear();
    std::visit(step, op.body);
    result.push_back(step.written);
  }
  return result;
}

}  // namespace steelyard::testing
