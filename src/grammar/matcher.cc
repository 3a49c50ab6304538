#include "grammar/matcher.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace steelyard {
namespace {

using Node = Grammar::Node;
constexpr std::size_t kMostStacks = 4096;                                  // of one state
constexpr std::size_t kMostStacksInAll = 1'000'000, kMostStates = 50'000;  // that are kept

constexpr std::uint64_t kMostWork = 20'000'000;  // about a second's

[[noreturn]] void too_many() {
  throw_error(ErrorKind::bad_input,
              "the grammar can be read in too many ways at once: make it less ambiguous");
}

}  // namespace

Matcher::Matcher(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) {
  clear();
  ++now_;
  reach(grammar_->start(grammar_->root()), 0);
  begin_ = intern();
}

void Matcher::clear() {
  stacks_.assign(1, {});
  stack_ids_.clear();
  states_.clear();
  states_.emplace_back();
  state_ids_.clear();
  state_ids_.emplace(std::vector<StackId>(), kDead);
  seen_.assign(1, 0);
}

Matcher::StackId Matcher::stack(std::uint32_t node, StackId below) {
  const std::uint64_t key = std::uint64_t{node} << 32 | below;
  const auto [entry, fresh] = stack_ids_.try_emplace(key, static_cast<StackId>(stacks_.size()));
  if (!fresh) return entry->second;
  if (stacks_.size() >= kMostStacksInAll) too_many();
  const Stack under = stacks_[below];
  const std::uint64_t left = std::uint64_t{grammar_->bytes_left(node)} + under.bytes_left;
  stacks_.push_back({node, below, under.depth + 1,
                     static_cast<std::uint32_t>(std::min<std::uint64_t>(left, Grammar::kNever))});
  seen_.push_back(0);
  return entry->second;
}

// Everything that can be reached from a node without a byte. A way on which the rules that are open couldn't
// all be ended within the depth is none.
void Matcher::reach(std::uint32_t node, StackId below) {
  todo_.clear();
  const auto add = [&](std::uint32_t to, StackId under) {
    if (std::uint64_t{stacks_[under].depth} + grammar_->depth_left(to) > Grammar::kMostDepth) return;
    const StackId id = stack(to, under);
    if (std::exchange(seen_[id], now_) != now_) todo_.push_back(id);
  };
  add(node, below);
  while (!todo_.empty()) {
    const StackId id = todo_.back();
    todo_.pop_back();
    if (++work_ > kMostWork) too_many();
    const Stack at = stacks_[id];
    const Node& n = grammar_->node(at.node);
    if (n.kind == Node::Kind::bytes) {
      if (reached_.size() >= kMostStacks) too_many();
      reached_.push_back(id);
    } else if (n.kind == Node::Kind::split) {
      add(n.a, at.below);
      add(n.next, at.below);
    } else if (n.kind == Node::Kind::call) {
      const bool last = grammar_->node(n.next).kind == Node::Kind::end;
      add(grammar_->start(n.a), last ? at.below : stack(n.next, at.below));
    } else if (at.below == 0) {
      complete_ = true;
    } else {
      add(stacks_[at.below].node, stacks_[at.below].below);
    }
  }
}

Matcher::State Matcher::intern() {
  std::sort(reached_.begin(), reached_.end());
  std::vector<StackId> key = reached_;
  if (complete_) key.push_back(0);
  const auto [entry, fresh] = state_ids_.try_emplace(std::move(key), static_cast<State>(states_.size()));
  if (fresh) {
    if (states_.size() >= kMostStates) too_many();
    StateData& state = states_.emplace_back();
    state.complete = complete_;
    if (complete_) state.bytes_left = 0;
    for (const StackId id : reached_) state.bytes_left = std::min(state.bytes_left, stacks_[id].bytes_left);
    state.stacks = reached_;
  }
  reached_.clear();
  complete_ = false;
  return entry->second;
}

Matcher::State Matcher::find_next(State from, std::uint8_t byte) {
  ++now_;
  reached_.clear();
  complete_ = false;
  for (std::size_t i = 0; i < states_[from].stacks.size(); ++i) {
    const Stack at = stacks_[states_[from].stacks[i]];
    const Node& n = grammar_->node(at.node);
    if (grammar_->has(n, byte)) reach(n.next, at.below);
  }
  const State to = intern();
  auto& ways = states_[from].ways;
  if (!ways) {
    ways = std::make_unique<std::array<State, 256>>();
    ways->fill(kUnknown);
  }
  (*ways)[byte] = to;
  return to;
}

Matcher::State Matcher::next(State state, std::string_view bytes) {
  for (const char c : bytes) {
    if (state == kDead) return kDead;
    state = next(state, static_cast<std::uint8_t>(c));
  }
  return state;
}

Matcher::State Matcher::forget_but(State state) {
  // From the top down, as they lie; then made anew from the bottom up.
  std::vector<std::vector<std::uint32_t>> kept;
  for (StackId id : states_[state].stacks) {
    auto& nodes = kept.emplace_back();
    for (; id != 0; id = stacks_[id].below) nodes.push_back(stacks_[id].node);
  }
  const bool complete = states_[state].complete;
  clear();
  now_ = 1;
  reach(grammar_->start(grammar_->root()), 0);
  begin_ = intern();
  complete_ = complete;
  for (const auto& nodes : kept) {
    StackId id = 0;
    for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) id = stack(*it, id);
    reached_.push_back(id);
  }
  return intern();
}

}  // namespace steelyard
