// Runs a grammar's automaton over bytes. What has been read so far is a state: the set of stacks that the
// automaton may be in. Stacks and states are kept once each, and the way from a state by a byte is looked up
// the second time, so that a whole vocabulary can be tried in about a millisecond.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "grammar/grammar.h"

namespace steelyard {

// One thread.
class Matcher {
 public:
  using State = std::uint32_t;
  static constexpr State kDead = 0;  // no byte leads back from here

  explicit Matcher(std::shared_ptr<const Grammar> grammar);
  State begin() const { return begin_; }
  // Throws Error(bad_input) when the grammar can be read in too many ways at once, or takes more work than
  // a turn may.
  State next(State state, std::uint8_t byte) {
    const auto& ways = states_[state].ways;
    if (ways && (*ways)[byte] != kUnknown) return (*ways)[byte];
    return find_next(state, byte);
  }
  State next(State state, std::string_view bytes);
  // What was read is whole.
  bool complete(State state) const { return states_[state].complete; }
  // … and nothing may follow.
  bool ended(State state) const { return complete(state) && states_[state].stacks.empty(); }
  // The fewest bytes until what was read is whole.
  std::uint32_t bytes_left(State state) const { return states_[state].bytes_left; }
  // Forgets all states but one, and says what that is called from now on; when there are many.
  State forget_but(State state);
  void begin_turn() { work_ = 0; }
  bool crowded() const { return states_.size() > 20'000 || stacks_.size() > 400'000; }

 private:
  static constexpr State kUnknown = 0xffffffff;
  using StackId = std::uint32_t;
  // Where the automaton is, and beneath it where it goes on when the rule ends. Stack 0 is empty.
  struct Stack {
    std::uint32_t node = 0;
    StackId below = 0;
    std::uint32_t depth = 0, bytes_left = 0;
  };
  struct StateData {
    std::vector<StackId> stacks;  // ascending; each at a node that takes bytes
    bool complete = false;
    std::uint32_t bytes_left = Grammar::kNever;
    std::unique_ptr<std::array<State, 256>> ways;
  };
  State find_next(State state, std::uint8_t byte);
  StackId stack(std::uint32_t node, StackId below);
  void clear();
  void reach(std::uint32_t node, StackId below);
  State intern();

  std::shared_ptr<const Grammar> grammar_;
  std::vector<Stack> stacks_;
  std::unordered_map<std::uint64_t, StackId> stack_ids_;
  std::vector<StateData> states_;
  std::map<std::vector<StackId>, State> state_ids_;  // stacks; a last 0 where complete
  State begin_ = 0;
  // Of the state that is being made.
  std::vector<StackId> reached_, todo_;
  std::vector<std::uint32_t> seen_;  // by stack: when it was reached last
  std::uint32_t now_ = 0;
  bool complete_ = false;
  std::uint64_t work_ = 0;  // nodes looked at in this turn
};

}  // namespace steelyard
