# deskyard-script: task 1
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$here = [Environment]::CurrentDirectory
try {
    $file = [IO.Path]::Combine($here, 'errand.json')
    $errand = ConvertFrom-Json -InputObject ([IO.File]::ReadAllText($file))
    [IO.File]::Delete($file)
    & ([ScriptBlock]::Create($errand.s)) $errand.p
} catch {
    $told = @{
        id = [string]$_.FullyQualifiedErrorId
        hresult = [int]$_.Exception.GetBaseException().HResult
        msg = [string]$_.Exception.Message
    }
    $failed = [IO.Path]::Combine($here, 'failed.json')
    [IO.File]::WriteAllText($failed, (ConvertTo-Json -InputObject $told -Compress))
}
