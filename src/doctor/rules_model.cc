// Causes that lie in the model's file, in its context, and in how a server is used.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/units.h"
#include "doctor/rules.h"

namespace steelyard::doctor {
namespace {

constexpr double kQ4KM = 4.85;  // bits a weight of Q4_K_M, as files have it
constexpr double kLarge = 7;    // more bits than this are many

double seconds_of(const Facts& f, Part part) {
  double sum = 0;
  for (const DeviceFacts& d : f.devices)
    for (const StepLine& line : d.step)
      if (line.part == part) sum += line.seconds;
  return sum;
}

Found slow_types(const Facts& f) {
  if (f.slow_types.empty()) return {};
  std::string list;
  for (const std::string& t : f.slow_types) list += (list.empty() ? "" : "; ") + t;
  return Finding{Cause::slow_types,
                 fmt::format("these are multiplied by a correct but slow kernel: {}", list),
                 "the model in Q4_K_M, Q6_K or Q8_0 (steelyard quantize)"};
}

Found context_depth(const Facts& f) {
  const double part = f.share(Part::kv);
  if (part < 0.25 || f.depth == 0) return {};
  const bool wide = f.kv_type == "f16" || f.kv_type == "f32";
  const double saved = seconds_of(f, Part::kv) * (1 - (f.kv_type == "f32" ? 8.5 / 32 : 8.5 / 16));
  Finding found{
      Cause::context_depth,
      fmt::format("{:.0f} % of a token's time goes to the keys and values of the {} tokens before it",
                  100 * part, f.depth),
      wide ? setting(f, "--kv-type q8_0, or a shorter conversation",
                     "OLLAMA_KV_CACHE_TYPE=q8_0 with OLLAMA_FLASH_ATTENTION=1",
                     "--cache-type-k q8_0 --cache-type-v q8_0 with --flash-attn on")
           : "a shorter conversation"};
  if (wide) {
    found.flags = {{"--kv-type", "q8_0"}};
    found.predicted = per_second(token_seconds(f) - saved);
  }
  return found;
}

Found stale_limit(const Facts& f) {
  const double limit = limit_seconds(f), now = token_seconds(f);
  const bool beaten = limit > 0 && now > 0 && now < 0.95 * limit;
  if (!beaten && f.stale_limits.empty()) return {};
  const std::string why =
      beaten ? fmt::format("it is {:.0f} % faster than the limit that was measured", 100 * (limit / now - 1))
             : f.stale_limits;
  return Finding{Cause::stale_limit, why + ": the shares below are too high",
                 "steelyard probe --again, while nothing else runs"};
}

Found reloads(const Facts& f) {
  if (f.loads < 3 || f.loads * 2 <= f.requests) return {};
  return Finding{Cause::reloads,
                 fmt::format("the model was loaded {} times for {} answer{}", f.loads, f.requests,
                             f.requests == 1 ? "" : "s"),
                 setting(f, "serve --keep-alive -1, and enough memory for all models in use",
                         "the same num_ctx and load options in every request; OLLAMA_KEEP_ALIVE=-1; "
                         "OLLAMA_MAX_LOADED_MODELS for those in use",
                         "one llama-server that stays; with --models-max for those in use")};
}

Found prefix_not_reused(const Facts& f) {
  const bool thrown = f.read_again >= 2;
  const bool never =
      f.requests >= 5 && f.prompt_tokens >= 500ull * f.requests && f.cached_tokens * 20 < f.prompt_tokens;
  if (!thrown && !never) return {};
  const std::string seen =
      thrown ? fmt::format("{} prompts were read anew although their beginning was known", f.read_again)
             : fmt::format("of {} prompt tokens in {} requests {} were known already", f.prompt_tokens,
                           f.requests, f.cached_tokens);
  return Finding{Cause::prefix_not_reused, seen,
                 "a beginning of the prompt that stays the same: no date or time in it, history unchanged "
                 "(thoughts left out by the "
                 "template change it), and as many parallel conversations as clients"};
}

Found queue_full(const Facts& f) {
  if (f.refused == 0 && f.waiting < std::max(1u, f.streams)) return {};
  const std::string seen =
      f.refused ? fmt::format("{} requests were refused because the queue was full", f.refused)
                : fmt::format("{} requests wait for {} that may run at once", f.waiting, f.streams);
  const std::uint32_t more = std::max(2u, f.streams * 2);
  return Finding{Cause::queue_full, seen,
                 setting(f, fmt::format("--parallel {}", more), fmt::format("OLLAMA_NUM_PARALLEL={}", more),
                         fmt::format("--parallel {}", more))};
}

Found prompts_between(const Facts& f) {
  if (f.mixed_steps < 0.3) return {};
  return Finding{
      Cause::prompts_between,
      fmt::format("{:.0f} % of the steps that generated also read others' prompts, which makes them longer",
                  100 * f.mixed_steps),
      setting(f, "a smaller --batch: shorter pieces of prompts between tokens", "a smaller num_batch",
              "a smaller --batch-size")};
}

Found cache_evicted(const Facts& f) {
  if (f.preempted == 0) return {};
  return Finding{
      Cause::cache_evicted,
      fmt::format("{} times an answer gave its pages to an older one and was computed again", f.preempted),
      setting(f, "--kv-type q8_0, a smaller --context or fewer --parallel",
              "a smaller num_ctx or OLLAMA_NUM_PARALLEL", "a larger --ctx-size or fewer --parallel")};
}

Found host_sampling(const Facts& f) {
  const double part = f.share(Part::sampling);
  if (part < 0.15) return {};
  Finding found{Cause::host_sampling,
                fmt::format("{:.0f} % of a token's time goes to drawing it", 100 * part),
                setting(f, "requests without logprobs, logit_bias and penalties; a --top-k",
                        "requests without format, logprobs and penalties; a top_k",
                        "fewer samplers (--samplers), no grammar; --backend-sampling")};
  found.predicted = per_second(token_seconds(f) * (1 - part));
  found.at_most = true;
  return found;
}

Found prompts_cut(const Facts& f) {
  if (f.truncated == 0) return {};
  return Finding{
      Cause::prompts_cut,
      fmt::format("{} prompt{} longer than the context and lost the beginning, which is read anew each time",
                  f.truncated, f.truncated == 1 ? " was" : "s were"),
      setting(f, "a larger --context", "a larger num_ctx (OLLAMA_CONTEXT_LENGTH)", "a larger --ctx-size")};
}

Found flash_attention_off(const Facts& f) {
  if (!f.flash_attention || *f.flash_attention || f.gpus().empty()) return {};
  return Finding{Cause::flash_attention_off,
                 "flash attention is off: long contexts take more memory and time",
                 setting(f, "", "OLLAMA_FLASH_ATTENTION=1", "--flash-attn on")};
}

// ---- offers ----

Found large_weights(const Facts& f) {
  if (f.bits_per_weight < kLarge || f.tokens_per_second <= 0) return {};
  const double weights = f.devices.empty() || f.share(Part::weights) <= 0 ? 0.9 : f.share(Part::weights);
  Finding found{Cause::large_weights,
                fmt::format("its weights have {:.1f} bits on average, and each is read for every token",
                            f.bits_per_weight),
                "the model in Q4_K_M (steelyard quantize, or such a file)"};
  found.predicted = per_second(token_seconds(f) * (1 - weights * (1 - kQ4KM / f.bits_per_weight)));
  found.price = "some accuracy: steelyard quantize --compare measures it";
  return found;
}

Found one_stream(const Facts& f) {
  if (f.streams > 1 || f.tokens_per_second <= 0 || f.devices.empty()) return {};
  constexpr double kStreams = 4;
  const double once = token_seconds(f) * (1 - f.share(Part::kv) - f.share(Part::sampling));
  const double each = token_seconds(f) * (f.share(Part::kv) + f.share(Part::sampling));
  if (f.share(Part::weights) < 0.3 && f.engine == Engine::steelyard) return {};  // not what bounds it
  Finding found{Cause::one_stream,
                "every weight is read for one token; four conversations at once would share the reading",
                setting(f, "serve --parallel 4", "OLLAMA_NUM_PARALLEL=4",
                        "--parallel 4 with four times the --ctx-size")};
  found.predicted = kStreams * per_second(once + kStreams * each);
  found.at_most = found.together = true;
  found.price = "memory for four contexts, and it helps only several conversations at once";
  return found;
}

}  // namespace

std::vector<Rule> model_rules() {
  return {slow_types,      context_depth, reloads,       prefix_not_reused, queue_full,
          prompts_between, cache_evicted, host_sampling, prompts_cut,       flash_attention_off,
          stale_limit,     large_weights, one_stream};
}

}  // namespace steelyard::doctor
