// The scheduler's other half: beginnings that are known already. Which pages a new sequence may take up, and
// which of its own it publishes for others.
#include <algorithm>

#include "device/step.h"
#include "engine/scheduler.h"
#include "text/vocabulary.h"

namespace steelyard {

// ---- taking up ----

// At least one token is computed anew, for its logits. Penalties see the tokens fed to the slot, so those
// they look at are fed again: the answer must not depend on what was cached.
std::uint32_t Scheduler::reuse_limit(const Sequence& s) const {
  if (s.every_row) return 0;
  const auto length = static_cast<std::uint32_t>(s.tokens.size());
  const SamplingParams& p = s.sampling;
  const bool penalties =
      p.repeat_penalty != 1.0f || p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f;
  if (!penalties || p.repeat_last_n == 0) return length - 1;
  if (p.repeat_last_n < 0 || static_cast<std::uint32_t>(p.repeat_last_n) >= length) return 0;
  return length - static_cast<std::uint32_t>(p.repeat_last_n);
}

Scheduler::Reuse Scheduler::find_reuse(const Sequence& s) {
  Reuse best;
  if (!reuse_prefixes_) return best;
  const std::uint32_t size = info_.page_tokens, limit = reuse_limit(s);
  const std::span<const TokenId> tokens(s.tokens);
  keys_[0] = {};
  std::uint32_t whole = 0;
  for (bool more = true; more && (whole + 1) * size <= limit; ++whole) {
    const auto page_tokens = tokens.subspan(whole * size, size);
    for (std::uint32_t g = 0; g < pools_.size(); ++g) {
      const auto match = pools_[g].find(keys_[whole], page_tokens);
      found_[g][whole] = match.tokens == size ? match.page : -1;
      if (found_[g][whole] < 0 && info_.groups[g].window == 0) more = false;
    }
    if (!more) break;
    keys_[whole + 1] = pools_[0].next_key(keys_[whole], page_tokens);
  }
  // The longest beginning whose last window is there in every group.
  for (best.pages = whole; best.pages > 0; --best.pages) {
    bool complete = true;
    for (std::uint32_t g = 0; g < pools_.size() && complete; ++g)
      for (std::uint32_t p = first_key_page(g, best.pages * size); p < best.pages && complete; ++p)
        complete = found_[g][p] >= 0;
    if (complete) break;
  }
  const std::uint32_t rest = std::min(size, limit - best.pages * size);
  best.partial = rest;
  for (std::uint32_t g = 0; g < pools_.size() && best.partial > 0; ++g)
    best.partial = pools_[g].find(keys_[best.pages], tokens.subspan(best.pages * size, best.partial)).tokens;
  return best;
}

void Scheduler::take_whole_pages(Sequence& s, const Reuse& reuse) {
  const std::uint32_t position = reuse.pages * info_.page_tokens;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    auto& pages = s.pages[g];
    pages.table.reserve(table_pages_);
    pages.table.assign(reuse.pages, -1);
    pages.first = first_key_page(g, position);
    for (std::uint32_t p = pages.first; p < reuse.pages; ++p) pools_[g].hold(pages.table[p] = found_[g][p]);
  }
  s.key = keys_[reuse.pages];
  s.published = reuse.pages;
  s.computed = s.confirmed = position;
}

// In every group or in none: when pages are short the tokens are computed again.
void Scheduler::take_partial_pages(Sequence& s, const Reuse& reuse, StepPlan& plan) {
  if (reuse.partial == 0) return;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const std::int32_t page = take_partial_page(g, s, reuse, plan);
    if (page < 0) {
      for (std::uint32_t h = 0; h < g; ++h) {
        pools_[h].release(s.pages[h].table.back());
        s.pages[h].table.pop_back();
      }
      return;
    }
    s.pages[g].table.push_back(page);
    pools_[g].set_filled(page, reuse.partial);
  }
  s.computed = s.confirmed = reuse.pages * info_.page_tokens + reuse.partial;
}

// A page of the sequence's own that begins with the known tokens: the cached page itself when nobody can miss
// it, else a copy.
std::int32_t Scheduler::take_partial_page(std::uint32_t group, const Sequence& s, const Reuse& reuse,
                                          StepPlan& plan) {
  PagePool& pool = pools_[group];
  const auto tokens = std::span(s.tokens).subspan(reuse.pages * info_.page_tokens, reuse.partial);
  const auto match = pool.find(s.key, tokens);
  if (match.tokens < reuse.partial) return -1;
  pool.hold(match.page);
  if (!pool.shared(match.page) && match.filled == reuse.partial) {
    pool.withdraw(match.page);
    return match.page;
  }
  const std::int32_t copy = pool.allocate();
  if (copy < 0) {
    pool.release(match.page);
    return -1;
  }
  plan.copies.push_back({group, match.page, copy});  // copied() lets go of the source
  return copy;
}

// ---- publishing ----

void Scheduler::publish_full_pages(Sequence& s) {
  const std::uint32_t size = info_.page_tokens;
  const std::uint32_t known = std::min(s.confirmed, static_cast<std::uint32_t>(s.tokens.size()));
  for (; (s.published + 1) * size <= known; ++s.published) {
    const auto tokens = std::span<const TokenId>(s.tokens).subspan(s.published * size, size);
    for (std::uint32_t g = 0; g < pools_.size(); ++g) {
      std::int32_t& page = s.pages[g].table[s.published];
      if (page < 0) continue;
      const std::int32_t same = pools_[g].publish(page, s.key, tokens);
      if (same == page) continue;
      pools_[g].hold(same);  // another sequence computed the same beginning: share its page
      pools_[g].release(page);
      page = same;
    }
    s.key = pools_[0].next_key(s.key, tokens);
  }
}

void Scheduler::publish_tail(Sequence& s) {
  const std::uint32_t size = info_.page_tokens, begin = s.published * size;
  const std::uint32_t known = std::min(s.confirmed, static_cast<std::uint32_t>(s.tokens.size()));
  if (known <= begin) return;
  const auto tokens = std::span<const TokenId>(s.tokens).subspan(begin, known - begin);
  for (std::uint32_t g = 0; g < pools_.size(); ++g)
    if (const auto page = s.pages[g].table[s.published]; page >= 0) pools_[g].publish(page, s.key, tokens);
}

}  // namespace steelyard
