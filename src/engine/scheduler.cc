#include "engine/scheduler.h"

#include <algorithm>

#include "device/step.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kLeastShare = 32;  // rows of a prompt worth a place in the step

std::uint32_t pages_for(std::uint32_t tokens, std::uint32_t page_tokens) {
  return (tokens + page_tokens - 1) / page_tokens;
}

}  // namespace

Scheduler::Scheduler(const RunnerInfo& info, bool reuse_prefixes)
    : info_(info),
      reuse_prefixes_(reuse_prefixes),
      table_pages_(pages_for(info.limits.context, info.page_tokens) + 1),
      keys_(table_pages_ + 1),
      found_(info.groups.size(), std::vector<std::int32_t>(table_pages_)) {
  pools_.reserve(info.groups.size());
  for (const auto& group : info.groups) pools_.emplace_back(group.pages, info.page_tokens);
  for (std::uint32_t slot = info.limits.slots; slot-- > 0;) free_slots_.push_back(slot);
  active_.reserve(info.limits.slots);
}

std::uint32_t Scheduler::most_tokens() const {
  std::uint64_t most = info_.limits.context;
  for (const auto& group : info_.groups)
    if (group.window == 0) most = std::min(most, std::uint64_t{group.pages} * info_.page_tokens);
  return static_cast<std::uint32_t>(most);
}

void Scheduler::add(Request sequence) {
  sequence->phase = Sequence::Phase::waiting;
  const auto after = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const auto& other) { return other->order > sequence->order; });
  waiting_.insert(after, std::move(sequence));
  may_admit_ = true;
}

void Scheduler::plan(StepPlan& plan, bool admit_new) {
  clear(plan);
  if (admit_new) admit(plan);
  for (const auto& sequence : active_) release_passed(*sequence);  // also of those that get no row now
  share_rows();
  bool any = false;
  for (std::size_t i = 0; i < active_.size(); ++i)  // preemption shortens it from the end
    if (active_[i]->planned_rows > 0 && ensure_pages(*active_[i])) any = true;
  if (!any) plan_oldest();
  double context_sum = 0;
  for (const auto& sequence : active_) {
    if (sequence->planned_rows == 0) continue;
    const double first = sequence->computed, rows = sequence->planned_rows;
    context_sum += rows * (first + (rows + 1) / 2);
    write_chunk(sequence, plan);
  }
  if (plan.shape.rows > 0) plan.shape.context = context_sum / plan.shape.rows;
}

// When nobody got both rows and pages: a younger sequence may have taken the output that the oldest needs.
void Scheduler::plan_oldest() {
  if (active_.empty()) return;
  Sequence& s = *active_.front();
  s.planned_rows = std::min(s.to_feed(), info_.limits.rows);
  if (s.every_row) s.planned_rows = std::min(s.planned_rows, info_.limits.outputs);
  if (s.planned_rows > 0) ensure_pages(s);
}

void Scheduler::clear(StepPlan& plan) const {
  const std::size_t slots = info_.limits.slots, groups = info_.groups.size();
  plan.chunks.clear();
  plan.entries.clear();
  plan.resets.clear();
  plan.copies.clear();
  plan.tokens.clear();
  plan.tables.clear();
  // Views point into these: they must not move while the plan grows.
  plan.tokens.reserve(info_.limits.rows);
  plan.tables.reserve(slots * groups);
  plan.shape = {.rows = 0, .outputs = 0};
  plan.prefill_rows = plan.decode_rows = 0;
  plan.brings_values = false;
}

// ---- admission ----

// A preempted sequence whose last samples are still in flight comes back when they are known: its slot will
// be another, and what was sampled for the old one is lost to the device.
void Scheduler::admit(StepPlan& plan) {
  while (may_admit_ && !waiting_.empty() && !free_slots_.empty() && waiting_.front()->ahead == 0) {
    if (!admit_one(waiting_.front(), plan)) {
      may_admit_ = false;
      return;
    }
    waiting_.pop_front();
  }
}

bool Scheduler::admit_one(const Request& sequence, StepPlan& plan) {
  Sequence& s = *sequence;
  s.pages.resize(pools_.size());
  const Reuse reuse = find_reuse(s);
  take_whole_pages(s, reuse);
  if (!active_.empty() && !pages_suffice(s)) {
    release_pages(s);
    return false;
  }
  take_partial_pages(s, reuse, plan);
  s.phase = Sequence::Phase::active;
  s.slot = free_slots_.back();
  free_slots_.pop_back();
  plan.resets.push_back(s.slot);
  if (++s.epoch == 1) s.cached_tokens = s.computed;
  const auto after =
      std::find_if(active_.begin(), active_.end(), [&](const auto& other) { return other->order > s.order; });
  active_.insert(after, sequence);
  return true;
}

void Scheduler::copied(const StepPlan& plan) {
  for (const auto& copy : plan.copies) pools_[copy.group].release(copy.from);
  if (!plan.copies.empty()) may_admit_ = true;
}

std::uint32_t Scheduler::pages_missing(const Sequence& s, std::uint32_t group) const {
  const std::uint32_t size = info_.page_tokens, window = info_.groups[group].window;
  const std::uint32_t wanted = pages_for(std::min(s.length() + 1, s.max_tokens), size);
  const auto held = static_cast<std::uint32_t>(s.pages[group].table.size());
  std::uint32_t missing = wanted > held ? wanted - held : 0;
  if (window > 0) {  // what lies behind the window is given back on the way
    const std::uint32_t most = pages_for(window + info_.limits.rows, size) + 1;
    const std::uint32_t live = held - s.pages[group].first;
    missing = std::min(missing, most > live ? most - live : 0);
  }
  return missing;
}

bool Scheduler::pages_suffice(const Sequence& s) const {
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    std::uint64_t wanted = pages_missing(s, g);
    for (const auto& other : active_) wanted += pages_missing(*other, g);
    if (wanted > pools_[g].available()) return false;
  }
  return true;
}

// ---- rows and pages of a step ----

void Scheduler::share_rows() {
  std::uint32_t prefilling = 0;
  for (const auto& s : active_) {
    s->planned_rows = 0;
    if (s->to_feed() > 0 && !s->decoding()) ++prefilling;
  }
  std::uint32_t rows = info_.limits.rows, outputs = info_.limits.outputs;
  share_decode_rows(rows, outputs, prefilling);
  share_prefill_rows(rows, outputs, prefilling);
}

// One row each; when they aren't enough the sequences take turns, and prompts keep a part of the step. A
// model in stages gets a share of them a step: then each stage has other sequences to work on, at the same
// time.
void Scheduler::share_decode_rows(std::uint32_t& rows, std::uint32_t& outputs, std::uint32_t prefilling) {
  const auto n = static_cast<std::uint32_t>(active_.size());
  if (n == 0) return;
  std::uint32_t most = std::min(rows, outputs);
  if (prefilling > 0 && most > 1) most = std::min({most, rows - std::max(rows / 4, 1u), outputs - 1});
  const auto decoding = static_cast<std::uint32_t>(
      std::count_if(active_.begin(), active_.end(), [](const auto& s) { return s->decoding(); }));
  most = std::min(most, (decoding + info_.stages - 1) / info_.stages);
  const std::uint32_t start = decode_turn_ % n;
  bool skipped = false;
  for (std::uint32_t i = 0; i < n; ++i) {
    Sequence& s = *active_[(start + i) % n];
    if (!s.decoding()) continue;
    if (most == 0) {
      if (!skipped) decode_turn_ = (start + i) % n;
      skipped = true;
      continue;
    }
    s.planned_rows = 1;
    --most;
    --rows;
    --outputs;
  }
}

// Even shares, earlier requests first with what is left over.
void Scheduler::share_prefill_rows(std::uint32_t rows, std::uint32_t outputs, std::uint32_t prefilling) {
  for (int sweep = 0; sweep < 2; ++sweep) {
    std::uint32_t sharers = prefilling;
    for (const auto& sequence : active_) {
      Sequence& s = *sequence;
      if (rows == 0) return;
      if (s.to_feed() == 0 || s.decoding()) continue;
      const std::uint32_t left = s.to_feed() - s.planned_rows;
      const std::uint32_t share = sweep > 0 ? rows : std::max(rows / sharers, std::min(rows, kLeastShare));
      --sharers;
      std::uint32_t n = std::min(left, share);
      if (s.every_row) {
        n = std::min(n, outputs);
        outputs -= n;
      } else if (n == left && n > 0) {  // the prompt's end wants a result
        if (outputs > 0) {
          --outputs;
        } else {
          --n;
        }
      }
      s.planned_rows += n;
      rows -= n;
    }
  }
}

// Pages for the planned rows, older sequences first; with fewer pages fewer rows are planned.
bool Scheduler::ensure_pages(Sequence& s) {
  const std::uint32_t size = info_.page_tokens;
  std::uint32_t reach = s.computed + s.planned_rows;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    auto& table = s.pages[g].table;
    while (table.size() < pages_for(reach, size)) {
      const std::int32_t page = allocate_for(s, g);
      if (page < 0) {
        reach = std::max(static_cast<std::uint32_t>(table.size()) * size, s.computed);
        break;
      }
      table.push_back(page);
    }
  }
  s.planned_rows = reach - s.computed;
  return s.planned_rows > 0;
}

std::int32_t Scheduler::allocate_for(const Sequence& s, std::uint32_t group) {
  while (true) {
    const std::int32_t page = pools_[group].allocate();
    if (page >= 0 || !preempt_younger_than(s.order)) return page;
  }
}

bool Scheduler::preempt_younger_than(std::uint64_t order) {
  if (active_.empty() || active_.back()->order <= order) return false;
  const Request victim = active_.back();
  active_.pop_back();
  deactivate(*victim);
  ++victim->preemptions;
  ++preemptions_;
  add(victim);
  return true;
}

void Scheduler::deactivate(Sequence& s) {
  release_pages(s);
  s.planned_rows = 0;
  free_slots_.push_back(s.slot);
  may_admit_ = true;
}

std::uint32_t Scheduler::first_key_page(std::uint32_t group, std::uint32_t position) const {
  const std::uint32_t window = info_.groups[group].window;
  return window == 0 || position + 1 <= window ? 0 : (position + 1 - window) / info_.page_tokens;
}

// Pages wholly behind the next row's window. Published ones stay cached as long as nobody needs the room.
void Scheduler::release_passed(Sequence& s) {
  const std::uint32_t known = reuse_prefixes_ ? s.published : s.confirmed / info_.page_tokens;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    auto& pages = s.pages[g];
    const std::uint32_t passed = std::min(first_key_page(g, s.computed), known);
    for (; pages.first < passed; ++pages.first) {
      pools_[g].release(pages.table[pages.first]);
      pages.table[pages.first] = -1;
    }
  }
}

// The end first: of equally old pages the last of a sequence is the first to be taken from the cache.
void Scheduler::release_pages(Sequence& s) {
  for (std::uint32_t g = 0; g < s.pages.size(); ++g) {
    auto& pages = s.pages[g];
    for (std::size_t p = pages.table.size(); p-- > pages.first;) pools_[g].release(pages.table[p]);
    pages.table.clear();
    pages.first = 0;
  }
  s.computed = s.confirmed = s.published = 0;
  s.key = {};
}

// ---- the batch ----

void Scheduler::write_chunk(const Request& sequence, StepPlan& plan) {
  Sequence& s = *sequence;
  const std::uint32_t rows = s.planned_rows;
  const bool decode = s.decoding(), last = s.computed + rows == s.length();
  const std::size_t first_token = plan.tokens.size(), first_table = plan.tables.size();
  for (std::uint32_t p = s.computed; p < s.computed + rows; ++p)
    plan.tokens.push_back(p < s.tokens.size() ? s.tokens[p] : kLastSample);
  for (const auto& pages : s.pages) plan.tables.emplace_back(pages.table);

  Chunk chunk{};
  chunk.slot = s.slot;
  chunk.first_position = static_cast<std::int32_t>(s.computed);
  chunk.tokens = std::span(plan.tokens).subspan(first_token, rows);
  chunk.block_tables = std::span(plan.tables).subspan(first_table, pools_.size());
  if (last || s.every_row) {
    chunk.n_outputs = s.every_row ? rows : 1;
    chunk.want = s.want;
    chunk.sampling = s.sampling;
    plan.brings_values |= s.want != Want::sample;
  }
  const bool output = chunk.n_outputs > 0;
  plan.entries.push_back(
      {sequence, s.epoch, rows, output ? static_cast<std::int32_t>(plan.shape.outputs) : -1, decode});
  plan.chunks.push_back(chunk);
  plan.shape.rows += rows;
  plan.shape.outputs += chunk.n_outputs;
  plan.shape.state_reads += s.computed + rows;
  (decode ? plan.decode_rows : plan.prefill_rows) += rows;
  s.computed += rows;
  if (last) ++s.ahead;
}

// ---- results ----

void Scheduler::confirm(const StepPlan::Entry& entry) {
  Sequence& s = *entry.sequence;
  if (s.phase != Sequence::Phase::active || s.epoch != entry.epoch) return;
  const std::uint32_t size = info_.page_tokens;
  const std::uint32_t before = s.confirmed;
  s.confirmed += entry.rows;
  for (std::uint32_t p = before / size; p < pages_for(s.confirmed, size); ++p)
    for (std::uint32_t g = 0; g < pools_.size(); ++g)
      if (const auto page = s.pages[g].table[p]; page >= 0)
        pools_[g].set_filled(page, std::min(s.confirmed - p * size, size));
  if (reuse_prefixes_) publish_full_pages(s);
}

void Scheduler::accept(Sequence& s, TokenId token) {
  s.tokens.push_back(token);
  --s.ahead;
}

void Scheduler::finish(const Request& sequence, bool forget) {
  Sequence& s = *sequence;
  if (s.phase == Sequence::Phase::waiting) {
    std::erase(waiting_, sequence);
  } else if (s.phase == Sequence::Phase::active) {
    if (reuse_prefixes_ && !forget) publish_tail(s);
    deactivate(s);
    std::erase(active_, sequence);
  }
  s.phase = Sequence::Phase::finished;
  may_admit_ = true;
}

}  // namespace steelyard
