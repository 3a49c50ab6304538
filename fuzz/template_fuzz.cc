// ROOMS: text
// Any bytes as a chat template, rendered with a rich conversation: an Error or a text, never a crash or a
// hang.
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "base/utf8.h"
#include "text/chat_template.h"

namespace {

const nlohmann::ordered_json& variables() {
  static const auto vars = nlohmann::ordered_json::parse(R"json({
    "messages": [
      {"role": "system", "content": "Be brief. \u00e9\u65e5\ud83d\ude80"},
      {"role": "user", "content": "What's the weather?\n<|im_end|>", "n": 3},
      {"role": "assistant", "content": null, "reasoning_content": "<think>\nhm\n</think>\n", "tool_calls": [
        {"id": "abcdefghi", "type": "function",
         "function": {"name": "weather", "arguments": {"city": "Z\u00fcrich", "days": 2.5, "ok": true, "x": [1, null]}}}]},
      {"role": "tool", "name": "weather", "content": "{\"t\": 21}", "tool_call_id": "abcdefghi"},
      {"role": "assistant", "content": "21 degrees."},
      {"role": "user", "content": [{"type": "text", "text": "and now?"}, {"type": "image"}]}],
    "tools": [{"type": "function", "function": {"name": "weather", "description": "<b>&\"'",
       "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["a", "b"]}}, "required": ["city"]}}}],
    "documents": [{"title": "T", "text": "lorem  ipsum"}],
    "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>", "enable_thinking": false,
    "a": 1, "b": -2.5, "c": "text", "d": {"x": 1, "y": [1, 2, {"z": "w"}]}, "e": [], "l": [3, 1, 2], "s": ["b", "A", "c"]
  })json");
  return vars;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const steelyard::TemplateLimits limits{.output_bytes = 1 << 18, .steps = 100'000, .memory_bytes = 4 << 20};
  try {
    steelyard::ChatTemplate compiled(std::string_view(reinterpret_cast<const char*>(data), size));
    std::string text = compiled.render(variables(), limits, 1'700'000'000);
    if (text.size() > limits.output_bytes || steelyard::valid_utf8(text) != text) std::abort();
  } catch (const steelyard::Error& error) {
    if (error.kind() != steelyard::ErrorKind::bad_input) std::abort();
  }
  return 0;
}
