// ROOMS: grammar
// Any bytes as a JSON Schema or a GBNF grammar: an Error, or an automaton whose shortest answer can be
// reached byte by byte; never a crash or a hang. The first byte chooses.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "base/error.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "grammar/matcher.h"

namespace {

steelyard::Grammar read(bool gbnf, std::string_view text) {
  if (gbnf) return steelyard::gbnf_grammar(text);
  int depth = 0;
  const auto shallow = [&](int at, auto, auto&) { return (depth = at) < 64; };
  const auto schema = nlohmann::ordered_json::parse(text, shallow, false);
  if (schema.is_discarded()) steelyard::throw_error(steelyard::ErrorKind::bad_input, "no JSON");
  return steelyard::schema_grammar(schema);
}

void follow(steelyard::Grammar grammar) {
  steelyard::Matcher m(std::make_shared<const steelyard::Grammar>(std::move(grammar)));
  auto state = m.begin();
  for (int i = 0; i < 200 && !m.complete(state); ++i) {
    auto best = steelyard::Matcher::kDead;
    for (int byte = 0; byte < 256; ++byte) {
      const auto next = m.next(state, static_cast<std::uint8_t>(byte));
      if (next != steelyard::Matcher::kDead && m.bytes_left(next) <= m.bytes_left(best)) best = next;
    }
    if (best == steelyard::Matcher::kDead) std::abort();
    state = best;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 4096) return 0;
  try {
    follow(read(data[0] == 'g', {reinterpret_cast<const char*>(data) + 1, size - 1}));
  } catch (const steelyard::Error& error) {
    if (error.kind() != steelyard::ErrorKind::bad_input && error.kind() != steelyard::ErrorKind::unsupported)
      std::abort();
  }
  return 0;
}
