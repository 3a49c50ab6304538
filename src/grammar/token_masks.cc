#include "grammar/token_masks.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace steelyard {
namespace {

constexpr std::size_t kKeptMasks = 64;
constexpr std::string_view kSpace = " \t\r\n";

std::size_t common(std::string_view a, std::string_view b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

void set(std::vector<std::uint32_t>& mask, std::int32_t token) {
  mask[static_cast<std::size_t>(token) / 32] |= 1u << (token % 32);
}
bool has(const std::vector<std::uint32_t>& mask, std::int32_t token) {
  return mask[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1;
}
bool any(const std::vector<std::uint32_t>& mask) {
  return std::ranges::any_of(mask, [](std::uint32_t word) { return word != 0; });
}

}  // namespace

TokenTrie::TokenTrie(std::uint32_t n_tokens, const std::function<std::string_view(std::int32_t id)>& piece,
                     const std::function<bool(std::int32_t id)>& is_end)
    : pieces_(n_tokens) {
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(n_tokens); ++id) {
    if (is_end(id)) {
      ends_.push_back(id);
      continue;
    }
    pieces_[static_cast<std::size_t>(id)] = piece(id);
    if (!pieces_[static_cast<std::size_t>(id)].empty()) tokens_.push_back(id);
  }
  std::ranges::sort(tokens_, {}, [&](std::int32_t id) { return this->piece(id); });
  std::vector<std::uint32_t> open;  // the nodes above the next one, by depth
  std::string_view before;
  const auto close = [&](std::size_t depth) {
    for (; open.size() > depth; open.pop_back())
      nodes_[open.back()].end = static_cast<std::uint32_t>(nodes_.size());
  };
  for (std::uint32_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view text = this->piece(tokens_[i]);
    close(common(before, text));
    for (std::size_t at = open.size(); at < text.size(); ++at) {
      open.push_back(static_cast<std::uint32_t>(nodes_.size()));
      nodes_.push_back({0, i, static_cast<std::uint32_t>(at + 1), static_cast<std::uint8_t>(text[at])});
    }
    depth_ = std::max(depth_, static_cast<std::uint32_t>(text.size()));
    before = text;
  }
  close(0);
  const auto n = static_cast<std::uint32_t>(tokens_.size());
  nodes_.push_back({static_cast<std::uint32_t>(nodes_.size() + 1), n, 0, 0});
}

TokenConstraint::TokenConstraint(std::shared_ptr<const Grammar> grammar,
                                 std::shared_ptr<const TokenTrie> trie, std::string after)
    : trie_(std::move(trie)),
      matcher_(std::move(grammar)),
      state_(matcher_.begin()),
      after_(std::move(after)),
      waiting_(!after_.empty()),
      path_(trie_->depth() + 1) {}

void TokenConstraint::walk(Mask& mask) {
  const auto nodes = trie_->nodes();
  const auto tokens = trie_->tokens();
  path_[0] = state_;
  for (std::uint32_t i = 0; i + 1 < nodes.size();) {
    const TokenTrie::Node& n = nodes[i];
    const Matcher::State state = matcher_.next(path_[n.depth - 1], static_cast<std::uint8_t>(n.byte));
    if (state == Matcher::kDead) {
      i = n.end;
      continue;
    }
    path_[n.depth] = state;
    for (std::uint32_t t = n.first_token; t < nodes[i + 1].first_token; ++t) set(mask, tokens[t]);
    ++i;
  }
}

const std::uint32_t* TokenConstraint::compute(Mask& mask) {
  mask.assign((trie_->size() + 31) / 32, 0);
  if (waiting_) {
    for (std::int32_t id = 0; id < static_cast<std::int32_t>(trie_->size()); ++id) set(mask, id);
    for (const std::int32_t id : trie_->end_tokens())
      mask[static_cast<std::size_t>(id) / 32] &= ~(1u << (id % 32));
  } else {
    walk(mask);
    if (complete())
      for (const std::int32_t id : trie_->end_tokens()) set(mask, id);
  }
  return mask.data();
}

const std::uint32_t* TokenConstraint::mask() {
  matcher_.begin_turn();
  if (!waiting_ && matcher_.crowded()) {
    state_ = matcher_.forget_but(state_);
    masks_.clear();
    order_.clear();
  }
  const Matcher::State key = waiting_ ? Matcher::kDead : state_;
  auto found = masks_.find(key);
  if (found == masks_.end()) {
    if (masks_.size() == kKeptMasks) {
      masks_.erase(order_.front());
      order_.pop_front();
    }
    found = masks_.emplace(key, Mask()).first;
    order_.push_back(key);
    compute(found->second);
  }
  return any(found->second) ? found->second.data() : nullptr;
}

std::uint32_t TokenConstraint::bytes_left_after(std::int32_t token) {
  if (waiting_) return 0;
  const std::string_view piece = trie_->piece(token);
  return piece.empty() ? 0 : matcher_.bytes_left(matcher_.next(state_, piece));
}

const std::uint32_t* TokenConstraint::mask_within(std::uint32_t bytes) {
  const std::uint32_t* all = mask();
  if (!all || waiting_) return all;
  const Mask& allowed = masks_.at(state_);
  std::uint32_t least = Grammar::kNever;
  std::vector<std::uint32_t> left(trie_->size(), Grammar::kNever);
  for (std::uint32_t id = 0; id < trie_->size(); ++id) {
    if (!has(allowed, static_cast<std::int32_t>(id))) continue;
    left[id] = bytes_left_after(static_cast<std::int32_t>(id));
    least = std::min(least, left[id]);
  }
  const std::uint32_t most = std::max(least, bytes);
  other_.assign(allowed.size(), 0);
  for (std::uint32_t id = 0; id < trie_->size(); ++id)
    if (left[id] <= most && has(allowed, static_cast<std::int32_t>(id)))
      set(other_, static_cast<std::int32_t>(id));
  return other_.data();
}

// What follows the mark in the same token is the answer's, but for white space.
void TokenConstraint::accept_waiting(std::string_view text) {
  seen_ += text;
  const std::size_t at = seen_.find(after_);
  if (at == std::string::npos) {
    if (seen_.size() >= after_.size()) seen_.erase(0, seen_.size() - after_.size() + 1);
    return;
  }
  waiting_ = false;
  const std::string_view rest = std::string_view(seen_).substr(at + after_.size());
  const std::size_t begin = std::min(rest.find_first_not_of(kSpace), rest.size());
  const Matcher::State state = matcher_.next(state_, rest.substr(begin));
  if (state != Matcher::kDead) state_ = state;
}

void TokenConstraint::accept(std::int32_t token, std::string_view text) {
  if (waiting_) return accept_waiting(text);
  const std::string_view piece = trie_->piece(token);
  if (!piece.empty()) state_ = matcher_.next(state_, piece);
}

}  // namespace steelyard
