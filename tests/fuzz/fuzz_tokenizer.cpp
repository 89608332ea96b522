// libFuzzer target: any bytes either become the tokenizer of a tokenizer.json, of whole words or BPE, or are
// rejected with an Error. A whole-word tokenizer is written and read back equal. Every tokenizer encodes any
// text to ids of its vocabulary and decodes them.
#include "data/text/tokenizer.h"
#include "tests/fuzz/fuzzing.h"

using namespace burrow;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = text_of(data, size);
  try {
    const auto t = data::Tokenizer::parse(text, "fuzz");
    if (t.whole_words()) {
      const std::string json = t.json();
      require(data::Tokenizer::parse(json, "again").json() == json, "a written tokenizer reads back equal");
    }
    for (const auto& ids :
         {t.encode(text), t.encode_plain(text), t.encode_plain(text, data::Place::inside)}) {
      for (const int32_t id : ids) require(id >= 0 && id < t.size(), "encode gives ids of the vocabulary");
      t.decode(ids);
    }
    for (const int32_t id : t.encode_plain(text))
      require(id == t.unknown() || !t.is_special(id), "text of a record forges no special token");
    require(
        (t.unknown() >= 0 || !t.whole_words()) && t.begin_of_text() < t.size() && t.end_of_text() < t.size(),
        "special tokens are in the vocabulary");
  } catch (const Error&) {
  }
  return 0;
}
