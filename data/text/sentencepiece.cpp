// SentencePiece models (Kudo & Richardson 2018, arXiv 1808.06226), read by the authors' library.
#include <sentencepiece_processor.h>

#include "data/text/text_model.h"
#include "tensor/check.h"

namespace burrow::data {
namespace {

using Processor = sentencepiece::SentencePieceProcessor;

// Appended to a model's bytes, it turns off the space before a text: concatenated protocol buffers merge, and
// this ModelProto has only a normalizer_spec (field 3) with add_dummy_prefix (field 3) = false.
constexpr std::string_view kNoPrefix{"\x1A\x02\x18\x00", 4};

void load(Processor& processor, std::string_view bytes, const std::string& where) {
  const auto status = processor.LoadFromSerializedProto({bytes.data(), bytes.size()});
  BURROW_CHECK(status.ok(), "{}: not a SentencePiece model: {}", where, status.ToString());
}

class SentencePiece : public TextModel {
 public:
  SentencePiece(std::string_view bytes, const std::string& where) {
    load(first_, bytes, where);
    load(inside_, std::string(bytes) + std::string(kNoPrefix), where);
    std::vector<int32_t> with, without;
    run(inside_, " a", with);
    run(inside_, "a", without);
    strips_ = with == without;
  }
  const Processor& processor() const { return first_; }

  void encode(std::string_view text, Place place, std::vector<int32_t>& ids) const override {
    if (text.empty()) return;
    // A model that strips spaces would lose the one between this text and the preceding one, so its dummy
    // prefix replaces it.
    const bool first = place != Place::inside || (strips_ && text.starts_with(' '));
    run(first ? first_ : inside_, text, ids);
  }
  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    const auto status = first_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    BURROW_CHECK(status.ok(), "[tokenizer] SentencePiece cannot decode: {}", status.ToString());
    return text;
  }

 private:
  static void run(const Processor& processor, std::string_view text, std::vector<int32_t>& ids) {
    std::vector<int> out;
    const auto status = processor.Encode({text.data(), text.size()}, &out);
    BURROW_CHECK(status.ok(), "[tokenizer] SentencePiece cannot encode: {}", status.ToString());
    ids.insert(ids.end(), out.begin(), out.end());
  }

  Processor first_, inside_;  // as in the file; without the space before a text
  bool strips_ = false;
};

}  // namespace

SentencePieceModel sentencepiece(std::string_view bytes, const std::string& where) {
  auto model = std::make_unique<SentencePiece>(bytes, where);
  const Processor& p = model->processor();
  SentencePieceModel out;
  for (int id = 0; id < p.GetPieceSize(); ++id) {
    out.vocabulary.words.push_back(p.IdToPiece(id));
    out.vocabulary.special.push_back(p.IsControl(id) || p.IsUnknown(id));
  }
  out.unknown = p.unk_id();
  out.begin = p.bos_id();
  out.end = p.eos_id();
  out.model = std::move(model);
  return out;
}

}  // namespace burrow::data
